"""The evaluation of a V-STaR result file: from its rows to a report as plain data. Pure.

Guarantees: every sample is either scored or left out for a counted reason; the mode, the box space and the judge are in
the report beside the numbers; equal files give equal reports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from evaluation import measures
from evaluation.faults import Faults
from evaluation.judging import EXACT, Judge, by_replies, rating_prompt
from evaluation.reading import PlacedRow
from evaluation.vstar.measures import CHAIN_NAMES, COMBINED, columns, record
from evaluation.vstar.measures import measures as metrics_of
from evaluation.vstar.sample import LENGTHS, VstarSample, read_sample
from evaluation.vstar.scoring import BOX_SPACES, MODES, Scorer, VstarScore
from evidence.config_checks import require
from evidence.errors import BadInput

HEADLINE = ("mlgm",)


def evaluate(
    rows: Iterable[PlacedRow],
    mode: str = "official",
    boxes: str = "as_written",
    judge: str = EXACT,
    replies: Mapping[str, str] | None = None,
    resamples: int = measures.RESAMPLES,
    faults: Faults | None = None,
) -> dict[str, Any]:
    """The report of a result file. judge: its name. replies: the judge's, by `judge_prompts`; None compares answers
    exactly. resamples: of the bootstrap, 0 for no intervals. faults: those found while reading.

    Raises BadInput if nothing can be scored.
    """
    faults = Faults() if faults is None else faults
    scores = _scores(rows, mode, boxes, by_replies(replies), faults)
    records = [record(score) for score in scores]
    table = columns(records)
    return {
        "benchmark": "vstar",
        "mode": mode,
        "boxes": boxes,
        "judge": _judges(scores, judge),
        "headline": list(HEADLINE),
        "n": len(records),
        **_numbers(records, table, mode, False, resamples),
        "counts": _counts(scores, table),
        "by_length": _by_class(records, table, "length", LENGTHS, mode, resamples),
        "by_domain": _by_class(records, table, "domain", sorted({r["domain"] for r in records}), mode, resamples),
        "faults": faults.report(),
        "samples": records,
    }


def judge_prompts(rows: Iterable[PlacedRow], mode: str = "official", boxes: str = "as_written") -> list[str]:
    """What a language model is to be asked about the answers of a result file: one prompt for each answer without a
    rating. Raises BadInput if nothing can be scored."""
    asked: list[str] = []

    def collecting(question: str, truth: str, answer: str) -> str:
        asked.append(rating_prompt(question, truth, answer))
        return ""

    _scores(rows, mode, boxes, collecting, Faults())
    return asked


def _scores(rows: Iterable[PlacedRow], mode: str, boxes: str, judge: Judge, faults: Faults) -> list[VstarScore]:
    require(mode in MODES, "--mode", mode, f"one of {', '.join(MODES)}")
    require(boxes in BOX_SPACES, "--boxes", boxes, f"one of {', '.join(BOX_SPACES)}")
    samples = _samples(rows, faults)
    scorer = Scorer(mode, boxes, judge, faults)
    scores = [scorer.score(sample) for sample in samples]
    if scorer.unscaled and not scorer.scaled:
        raise BadInput(
            "--boxes converted: no sample says how large its frames were; add input_shape, [width, height] of the "
            "frames that the model saw, or compare boxes as_written"
        )
    return scores


def _samples(rows: Iterable[PlacedRow], faults: Faults) -> list[VstarSample]:
    samples: list[VstarSample] = []
    seen: set[str] = set()
    for row in rows:
        try:
            sample = read_sample(row.values, row.position)
        except ValueError as error:
            faults.add(f"left out: {error}", f"sample {row.position}")
            continue
        identity = repr([sample.values.get(key) for key in ("vid", "question", "temporal_question", "timestamps")])
        if identity in seen:
            faults.add("repeats an earlier sample: scored again, as the official script does", f"sample {row.position}")
        if sample.span[0] >= sample.span[1]:
            faults.add("its timestamps are reversed or equal: temporal IoU 0", f"sample {row.position}")
        seen.add(identity)
        samples.append(sample)
    if not samples:
        reason = f"; {faults.first()}" if faults else ""
        raise BadInput(f"no sample can be scored{reason}; give a V-STaR result file, the annotation with answers added")
    return samples


def _judges(scores: Sequence[VstarScore], judge: str) -> str:
    """Whose ratings the answers have: `recorded` ones of the file, those of the judge asked here, or both."""
    asked = {score.judged for score in scores if score.answered}
    return " and ".join([*(["recorded"] if False in asked else []), *([judge] if True in asked else [])]) or "none"


def _numbers(
    records: Sequence[dict[str, Any]], table: np.ndarray, mode: str, within_class: bool, resamples: int
) -> dict[str, Any]:
    """The metrics, and their intervals under `ci95` in the same form."""
    metrics = metrics_of(mode, within_class)
    numbers = measures.nested(measures.values(table, metrics))
    if resamples:
        videos = [r["video"] for r in records]
        numbers["ci95"] = measures.nested(measures.intervals(videos, table, metrics, resamples))
    return numbers


def _counts(scores: Sequence[VstarScore], table: np.ndarray) -> dict[str, Any]:
    """How many samples, parts and combinations; those of parts are out of four a sample, two times and two places."""
    totals = iter(table.sum(axis=0)[3:].tolist())
    per_chain = {}
    for chain in CHAIN_NAMES:
        own = [next(totals) for _ in range((table.shape[1] - 3) // 2)]
        per_chain[chain] = {name: int(n) for name, n in zip(COMBINED, own[-len(COMBINED) :])}
    return {
        "answered": sum(score.answered for score in scores),
        "unanswered": sum(not score.answered for score in scores),
        "right": sum(score.right for score in scores),
        "judged": sum(score.judged for score in scores),
        "judge_failures": sum(score.answered and score.rating is None for score in scores),
        "missing": sum(score.missing for score in scores),
        "unparsable": sum(score.unparsable for score in scores),
        **per_chain,
    }


def _by_class(
    records: Sequence[dict[str, Any]], table: np.ndarray, key: str, names: Sequence[str], mode: str, resamples: int
) -> dict[str, Any]:
    present = Counter(r[key] for r in records)
    classes = {}
    for name in names:
        if present[name]:
            places = [n for n, r in enumerate(records) if r[key] == name]
            own = [records[n] for n in places]
            classes[name] = {"n": len(own), **_numbers(own, table[places], mode, True, resamples)}
    return classes
