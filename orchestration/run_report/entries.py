"""What the evidence browser shows of one prompt: its completions with their claims, verdicts and labelled boxes. Pure.

Guarantees: all text of models and data is made visible (evidence/visible) and cut into pieces, so that the page needs
no offsets; a claim that was scored has its recorded verdict, and any other claim none; nothing is computed by a
referee.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from evaluation.heldout import ClipRecord
from evidence.answers import cited_frames
from evidence.geometry import nearest_frame
from evidence.grammar import DEGENERATE
from evidence.spaces import read
from evidence.types import Box, Claim, FrameInfo, Sample
from evidence.visible import visible
from orchestration.run_report.recorded import Group
from referee.trust.labelled_claims import asked_phrase, label_claims, moments_of

UNKNOWN = "unknown"
TRAINING, HELDOUT = "training", "held-out"


@dataclass(frozen=True)
class ShownClaim:
    """frame: index of the frame shown nearest to `time`. The verdict and the score are None where none is recorded,
    `iou`, with the labelled box of the object asked about, where there is no label. flag: what is wrong with it."""

    phrase: str
    box: Box | None
    time: float | None
    until: float | None
    frame: int | None
    relevance: float | None = None
    localization: float | None = None
    temporal_penalty: float | None = None
    score: float | None = None
    iou: float | None = None
    flag: str | None = None


@dataclass(frozen=True)
class ShownCompletion:
    """pieces: the text in order, each with the numbers of the claims that it is, from 1. terms: by name, the reward
    among them. cited: frames cited by number. versions: of the weights that drew it."""

    pieces: tuple[tuple[str, tuple[int, ...]], ...]
    claims: tuple[ShownClaim, ...]
    terms: dict[str, float | None]
    cited: tuple[int, ...] = ()
    versions: tuple[int, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One prompt at one step. run: its index. labels: the boxes of the object asked about, in pixels, by frame index.
    spread: largest minus smallest reward; of a held-out clip, over the steps. apart: the largest difference between a
    claim's score and its IoU with the label; None where no claim has both. why: for what it was chosen."""

    run: int
    kind: str
    step: int
    sample: str
    task: str
    question: str
    answer: str
    size: tuple[int, int]
    times: tuple[float, ...]
    completions: tuple[ShownCompletion, ...]
    labels: dict[int, tuple[Box, ...]] = field(default_factory=dict)
    spread: float = 0.0
    apart: float | None = None
    why: str = ""


def training_entry(run: int, group: Group, sample: Sample | None, space: str) -> Entry:
    """The entry of a recorded group. sample: of the dataset, None if it is not available. space: of the boxes that the
    policy writes. Raises KeyError, TypeError or ValueError for lines that hold something else."""
    first = group.lines[0]
    info = shown_frames(first["frame_size"], first["frame_times"], sample)
    completions = tuple(_completion(line, info, sample, space) for line in group.lines)
    return Entry(
        run=run,
        kind=TRAINING,
        step=group.step,
        completions=completions,
        spread=group.spread,
        apart=apart(completions),
        **_asked(group.sample, first.get("question"), first.get("answer"), sample, info),
    )


def heldout_entry(run: int, step: int, record: ClipRecord, sample: Sample | None, space: str) -> Entry:
    """The entry of a held-out clip's greedy completion after `step`."""
    info = shown_frames(record.frame_size, record.frame_times, sample)
    claims = read(record.text, info, space).claims
    valid = [claim for claim in claims if claim.valid]
    ious = dict(zip(valid, record.claim_ious)) if len(valid) == len(record.claim_ious) else {}
    shown = tuple(_claim(claim, info, None, _known(ious.get(claim))) for claim in claims)
    terms = {"reward": _known(record.reward), "accuracy": record.accuracy, "IoU": _known(record.iou)}
    completion = ShownCompletion(pieces(record.text, claims), shown, terms, _cited(record.text, info))
    asked = _asked(record.clip, None, None, sample, info)
    return Entry(run=run, kind=HELDOUT, step=step, completions=(completion,), **asked)


def shown_frames(size: Sequence[int], times: Sequence[float], sample: Sample | None) -> FrameInfo:
    """The frames shown, as far as they are recorded."""
    width, height = size
    original = (sample.image_size if sample else None) or (width, height)
    duration = (sample.duration if sample else None) or (times[-1] if times else 0.0)
    return FrameInfo("", tuple(map(float, times)), (int(width), int(height)), original, duration)


def apart(completions: Sequence[ShownCompletion]) -> float | None:
    """The largest difference between a claim's score and its IoU with the label."""
    differences = [
        abs(claim.score - claim.iou)
        for completion in completions
        for claim in completion.claims
        if claim.score is not None and claim.iou is not None
    ]
    return max(differences, default=None)


def pieces(text: str, claims: Sequence[Claim]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The visible text, cut at its claims. Several boxes of one object are one piece."""
    numbers: dict[tuple[int, int], list[int]] = {}
    for number, claim in enumerate(claims, 1):
        numbers.setdefault(claim.span, []).append(number)
    shown, position = visible(text, kept="\n\t"), 0
    cut: list[tuple[str, tuple[int, ...]]] = []
    for (start, end), of_piece in numbers.items():
        if start >= position:
            cut += [(shown[position:start], ()), (shown[start:end], tuple(of_piece))]
            position = end
    cut.append((shown[position:], ()))
    return tuple(piece for piece in cut if piece[0])


def _asked(name: str, question: Any, answer: Any, sample: Sample | None, info: FrameInfo) -> dict[str, Any]:
    """What an entry says about its prompt. The recorded question, where there is one, is that which was asked."""
    asked = sample.asked if sample else question
    return {
        "sample": visible(name),
        "task": visible(sample.task) if sample else UNKNOWN,
        "question": visible(str(asked if asked is not None else UNKNOWN)),
        "answer": visible(str(answer if answer is not None else sample.answer if sample else UNKNOWN)),
        "size": info.size,
        "times": info.times,
        "labels": _labels(sample, info),
    }


def _labels(sample: Sample | None, info: FrameInfo) -> dict[int, tuple[Box, ...]]:
    phrase = asked_phrase(sample) if sample else None
    if sample is None or phrase is None or not info.times:
        return {}
    boxes = {info.times.index(moment.time): moment.items.get(phrase, ()) for moment in moments_of(sample, info)}
    return {frame: at for frame, at in boxes.items() if at}


def _completion(line: dict[str, Any], info: FrameInfo, sample: Sample | None, space: str) -> ShownCompletion:
    text = line["text"]
    claims = read(text, info, space).claims
    verdicts = matched(claims, line["claims"])
    ious = {}
    if sample and info.times:
        ious = {labelled.claim: labelled.asked_iou for labelled in label_claims(sample, info, claims, "recorded")}
    shown = tuple(_claim(claim, info, verdict, ious.get(claim)) for claim, verdict in zip(claims, verdicts))
    terms = {"reward": line["reward"]} | {visible(str(name)): value for name, value in line["terms"].items()}
    versions = tuple(int(version) for version in line.get("versions", ()))
    return ShownCompletion(pieces(text, claims), shown, terms, _cited(text, info), versions)


def matched(claims: Sequence[Claim], recorded: Sequence[dict[str, Any]]) -> list[dict[str, Any] | None]:
    """For each claim of a text what was recorded about it. Only complete claims were scored, and in their order."""
    left, verdicts = list(recorded), []
    for claim in claims:
        complete = claim.valid or claim.reason == DEGENERATE
        is_next = complete and bool(left) and left[0]["phrase"] == claim.phrase
        verdicts.append(left.pop(0) if is_next else None)
    return verdicts


def _claim(claim: Claim, info: FrameInfo, recorded: dict[str, Any] | None, iou: float | None) -> ShownClaim:
    verdict = {} if recorded is None else recorded
    time = verdict.get("time", claim.time)
    flag = verdict.get("flag") or claim.reason
    return ShownClaim(
        phrase=visible(claim.phrase),
        box=tuple(verdict.get("box") or ()) or claim.box,
        time=time,
        until=verdict.get("until", claim.until),
        frame=nearest_frame(info.times, time) if time is not None and info.times else None,
        # A claim with a flag was not put to the referee: its verdict stands for nothing.
        relevance=None if flag else verdict.get("relevance"),
        localization=None if flag else verdict.get("localization"),
        temporal_penalty=verdict.get("temporal_penalty"),
        score=verdict.get("score"),
        iou=iou,
        flag=visible(str(flag)) if flag else None,
    )


def _cited(text: str, info: FrameInfo) -> tuple[int, ...]:
    cited = cited_frames(text, len(info.times))
    return cited.valid if cited else ()


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
