"""Scores recorded completions of a benchmark against its annotation. Pure.

Guarantees: every question of the annotation is in the report. One without a completion is wrong and counted as
unanswered, unless a protocol counts only what was answered. A completion that belongs to no question, and a second one
for the same question, are counted and not scored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from evaluation import measures
from evaluation.benchmark import (
    OUTCOMES,
    PROTOCOLS,
    UNANSWERED,
    Benchmark,
    Completion,
    Question,
    Record,
    Scored,
)
from evaluation.faults import Faults
from evaluation.reading import PlacedRow
from evidence.config_checks import require
from evidence.errors import BadInput
from evidence.spaces import Written
from evidence.types import FrameInfo
from rollout.dataset.read import describe

KNOWN_KEYS = ("id", "text", "judge_reply")
FRAME_KEYS = ("frame_size", "original_size", "frame_times", "duration")  # those of evidence.types.FrameInfo


def evaluate(
    benchmark: Benchmark,
    data: Iterable[PlacedRow],
    completions: Iterable[PlacedRow],
    protocol: str = PROTOCOLS[0],
    resamples: int = measures.RESAMPLES,
    faults: Faults | None = None,
) -> dict[str, Any]:
    """The report. faults: those found while reading. Raises BadInput if nothing can be scored."""
    require(protocol in PROTOCOLS, "--protocol", protocol, f"one of {', '.join(PROTOCOLS)}")
    faults = Faults() if faults is None else faults
    questions = read_questions(benchmark, data, faults)
    recorded = _recorded(completions, questions, faults)
    if not recorded:
        reason = f"; {faults.first()}" if faults else ""
        some = ", ".join(list(questions)[:3])
        raise BadInput(f"no completion belongs to a question{reason}; the questions are called {some}, …")
    return report_of(benchmark, questions, recorded, protocol, resamples, faults)


def report_of(
    benchmark: Benchmark,
    questions: Mapping[str, Question],
    recorded: Mapping[str, Completion],
    protocol: str,
    resamples: int,
    faults: Faults,
) -> dict[str, Any]:
    """The report on completions by the ids of their questions."""
    official = protocol == "official"
    records = [
        record(question, _scored(benchmark, question, recorded.get(name), official))
        for name, question in questions.items()
    ]
    columns, metrics = benchmark.table(records)
    return {
        "benchmark": benchmark.name,
        "protocol": protocol,
        "headline": list(benchmark.headline),
        "n": len(records),
        **_numbers(records, columns, metrics, resamples),
        "counts": counts(records),
        **_by_class(benchmark, records, resamples),
        "faults": faults.report(),
        "samples": records,
    }


def read_questions(benchmark: Benchmark, data: Iterable[PlacedRow], faults: Faults) -> dict[str, Question]:
    """The questions by id. Rows that are not the benchmark's are counted. Raises BadInput if none is."""
    questions: dict[str, Question] = {}
    for row in data:
        try:
            read = list(benchmark.read(row))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            faults.add(f"not a {benchmark.title} row, left out: {describe(error)}", row.place)
            continue
        for question in read:
            if question.id in questions:
                faults.add("a question with the id of an earlier one is left out", f"{row.place}, id {question.id}")
            questions.setdefault(question.id, question)
    if not questions:
        reason = f"; {faults.first()}" if faults else ""
        raise BadInput(f"--data holds no question of {benchmark.title}{reason}")
    return questions


def record(question: Question, scored: Scored) -> Record:
    """One sample's scores as plain data."""
    return {
        "id": question.id,
        "video": question.video,
        "kind": question.kind,
        "score": scored.score,
        "parsed": scored.parsed,
        "outcome": scored.outcome,
        "counted": scored.counted,
        "groups": {key: list(names) for key, names in question.groups.items()},
        **scored.more,
    }


def counts(records: Sequence[Record]) -> dict[str, int]:
    """How many samples had each outcome, and how many the protocol leaves out."""
    outcomes = Counter(r["outcome"] for r in records)
    return {outcome: outcomes[outcome] for outcome in OUTCOMES} | {
        "left_out": sum(not r["counted"] for r in records),
    }


def _scored(benchmark: Benchmark, question: Question, completion: Completion | None, official: bool) -> Scored:
    """A question without a completion is wrong, and counted if an empty completion is."""
    if completion is not None:
        return benchmark.score(question, completion, official)
    return Scored(0.0, None, UNANSWERED, benchmark.score(question, Completion(""), official).counted)


def _recorded(rows: Iterable[PlacedRow], questions: Mapping[str, Question], faults: Faults) -> dict[str, Completion]:
    """The first completion of each question. A question may be named by the last part of its id (`a/b`: `b`), if that
    is unambiguous."""
    last_parts = Counter(name.rpartition("/")[2] for name in questions)
    aliases = {name.rpartition("/")[2]: name for name in questions if last_parts[name.rpartition("/")[2]] == 1}
    recorded: dict[str, Completion] = {}
    for row in rows:
        values = row.values if isinstance(row.values, dict) else {}
        name, text, reply = (values.get(key) for key in KNOWN_KEYS)
        if name is None or not isinstance(text, str) or not isinstance(reply, str | None):
            faults.add('a completion that is not {"id": …, "text": …} is left out', row.place)
            continue
        name = str(name) if str(name) in questions else aliases.get(str(name))
        if name is None:
            faults.add("a completion whose id no question has is left out", f"{row.place}, id {values['id']!r:.60}")
        elif name in recorded:
            faults.add("a second completion of a question is left out", f"{row.place}, id {values['id']!r:.60}")
        else:
            recorded[name] = completion_of(values)
    return recorded


def completion_of(values: Mapping[str, Any], written: Written | None = None) -> Completion:
    """The completion in a recorded line that has a text, with its frames if the line has all of FRAME_KEYS."""
    frames = None
    if all(isinstance(values.get(key), list) for key in FRAME_KEYS[:-1]):
        size, original, times = (tuple(values[key]) for key in FRAME_KEYS[:-1])
        frames = FrameInfo("", times, size, original, float(values.get(FRAME_KEYS[-1]) or 0.0))
    return Completion(values["text"], values.get("judge_reply"), frames, written or Written())


def frame_values(info: FrameInfo) -> dict[str, Any]:
    """The FRAME_KEYS of a line about a completion that was drawn on these frames."""
    return dict(zip(FRAME_KEYS, (info.size, info.original_size, info.times, info.duration)))


def _numbers(
    records: Sequence[Record], columns: np.ndarray, metrics: measures.Metrics, resamples: int
) -> dict[str, Any]:
    numbers = measures.nested(measures.values(columns, metrics))
    if resamples:
        videos = [r["video"] for r in records]
        numbers["ci95"] = measures.nested(measures.intervals(videos, columns, metrics, resamples))
    return numbers


def _by_class(benchmark: Benchmark, records: Sequence[Record], resamples: int) -> dict[str, Any]:
    """`by_X` for each class X of the questions: the metrics of the samples under each of its names."""
    report: dict[str, Any] = {}
    for key in dict.fromkeys(key for r in records for key in r["groups"]):
        classes = report[f"by_{key}"] = {}
        for name in sorted({name for r in records for name in r["groups"].get(key, ())}):
            own = [r for r in records if name in r["groups"].get(key, ())]
            columns, metrics = benchmark.table(own)
            classes[name] = {"n": len(own), **_numbers(own, columns, metrics, resamples)}
    return report
