"""Any dataset that `rollout.dataset` reads: accuracy by task as the reward terms define it, temporal IoU, and box IoU.

Files: one dataset, in any of its formats (docs/data.md). A question is `position/id`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from evaluation.benchmark import (
    READ,
    UNPARSABLE,
    Benchmark,
    Completion,
    Question,
    Record,
    Scored,
    accuracy_table,
)
from evaluation.choices import answer_text
from evaluation.heldout import claim_iou, is_labelled
from evaluation.measures import Key, Metrics, share
from evaluation.reading import PlacedRow, row_of
from evidence import spaces
from evidence.grammar import parse
from referee.terms.answers import accuracy, interval, rule_of, true_span
from referee.terms.view import GroupView
from rollout.dataset.formats import detect

# Measured where they apply: equality of free-form answers, whose accuracy is ROUGE; IoUs where there are labels.
MORE = ("exact", "tiou", "box_iou")
TEMPORAL_RULES = ("interval", "stated choice")


def read(placed: PlacedRow) -> Iterator[Question]:
    row = row_of(placed)
    sample = detect([row.values]).read(row)
    yield Question(
        id=f"{placed.position}/{sample.id}",
        video=str(Path(sample.media_path).relative_to(row.media_root)),
        text=sample.asked,
        answer=sample.answer,
        kind=rule_of(sample),
        groups={"task": (sample.task,), "source": (sample.source,)},
        sample=sample,
    )


def ask(question: Question) -> str:
    return question.text


def score(question: Question, completion: Completion, official: bool) -> Scored:
    sample = question.sample
    assert sample is not None
    info, written, answer = completion.frames, completion.written, answer_text(completion.text)
    if info is None:
        parsed, printed = parse(completion.text), spaces.NONE_PRINTED
    else:
        printed = written.printed(info)
        parsed = spaces.read(completion.text, info, written.space, printed)
    parsed = replace(parsed, answer=answer)
    view = GroupView(sample, (completion.text,), (parsed,), info, written.space, printed)
    more = {}
    if rule_of(sample) == "free-form":
        more["exact"] = accuracy(view, free_form="exact")[0]
    span = true_span(sample)
    if span is not None and rule_of(sample) in TEMPORAL_RULES:
        more["tiou"] = interval(answer or "", span)
    if info is not None and is_labelled(sample):
        ious = [claim_iou(claim, sample, info) for claim in parsed.claims if claim.valid]
        more["box_iou"] = float(np.mean(ious)) if ious else 0.0
    return Scored(accuracy(view)[0], answer, READ if answer else UNPARSABLE, more=more)


def table(records: Sequence[Record]) -> tuple[np.ndarray, Metrics]:
    """As `accuracy_table`, and for each of MORE its mean over the samples that have it."""
    samples, acc = accuracy_table(records)
    more = [[(r.get(name) or 0.0, r.get(name) is not None) for name in MORE] for r in records]
    columns = np.concatenate([samples, np.array(more, float).reshape(len(records), -1)], axis=1)

    def metrics(sums: np.ndarray) -> dict[Key, np.ndarray]:
        means: dict[Key, np.ndarray] = {
            (name,): share(sums[..., 2 + 2 * n], sums[..., 3 + 2 * n]) for n, name in enumerate(MORE)
        }
        return {**acc(sums), **means}

    return columns, metrics


BENCHMARK = Benchmark(
    name="data",
    title="dataset",
    read=read,
    ask=ask,
    score=score,
    official="nothing: the rules of the reward terms hold under both protocols",
    table=table,
)
