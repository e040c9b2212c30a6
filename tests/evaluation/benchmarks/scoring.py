"""Scores made rows and completions of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.benchmark import Benchmark, Completion
from evaluation.completions import evaluate
from evaluation.reading import PlacedRow
from evaluation.registry import named


def placed(rows: Sequence[Any] | Mapping[str, Any], name: str = "data/test.json") -> list[PlacedRow]:
    if isinstance(rows, Mapping):
        return [PlacedRow(Path(name), n, values, key) for n, (key, values) in enumerate(rows.items())]
    return [PlacedRow(Path(name), n, values) for n, values in enumerate(rows)]


def benchmark(name: str) -> Benchmark:
    found = named(name)
    assert isinstance(found, Benchmark)
    return found


def report(name: str, rows: Any, texts: Mapping[str, str] | Sequence[Any], protocol: str = "strict") -> dict[str, Any]:
    """`texts`: text by id, or whole lines of a completions file."""
    lines = [{"id": key, "text": text} for key, text in texts.items()] if isinstance(texts, Mapping) else texts
    data = rows if rows and isinstance(rows, list) and isinstance(rows[0], PlacedRow) else placed(rows)
    return evaluate(benchmark(name), data, placed(lines, "completions.jsonl"), protocol, resamples=0)


def score(name: str, row: Any, text: str, protocol: str = "strict", reply: str | None = None) -> tuple[float, str]:
    """Score and outcome of one completion of the first question in `row`."""
    question = next(iter(benchmark(name).read(row if isinstance(row, PlacedRow) else placed([row])[0])))
    scored = benchmark(name).score(question, Completion(text, reply), protocol == "official")
    return scored.score, scored.outcome


def ids(name: str, rows: Any) -> list[str]:
    return [question.id for row in placed(rows) for question in benchmark(name).read(row)]
