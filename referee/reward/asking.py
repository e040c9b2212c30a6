"""Asking the referee and the text judge about a group: the one place where a view gets its answers. Pure.

Guarantee: only what a term of the reward needs is asked, and an answer that is missing stays missing (None).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from evidence.grammar import Completion
from evidence.types import Claim, FrameInfo, Sample, Verdict
from referee.reward.graph import RewardGraph
from referee.reward.ser import Ser
from referee.terms.answers import reference_of
from referee.terms.view import GroupView


class Referee(Protocol):
    """Whatever answers: one referee or an ensemble, actors or an endpoint."""

    async def verify(self, question: str, claims: list[Claim], info: FrameInfo, frames: Any) -> list[Verdict | None]:
        """A verdict per claim, None where there is none. `frames`: uint8 [n, H, W, 3], or a reference to them."""

    async def judge(self, question: str, reference: str, answer: str) -> float | None:
        """The score of an answer in [0, 1], None where there is none."""


async def answered(view: GroupView, graph: RewardGraph, referee: Referee, info: FrameInfo, frames: Any) -> GroupView:
    """`view` with the verdicts and judgements that the terms of `graph` need. `info`, `frames`: what its completions
    were drawn on."""
    needs = graph.needs_for(view.sample.task)
    if graph.ser is not None and "verdicts" in needs:
        verdicts = await ask_verdicts(referee, graph.ser, view.sample, view.completions, info, frames)
        view = replace(view, verdicts=tuple(verdicts))
    if "judgements" in needs:
        view = replace(view, judgements=await ask_judgements(referee, view.sample, view.completions))
    return view


async def ask_verdicts(
    referee: Referee, ser: Ser, sample: Sample, completions: Sequence[Completion], info: FrameInfo, frames: Any
) -> list[list[Verdict | None]]:
    """The verdicts on the claims of each completion that `ser` wants verified, asked in one call."""
    claims = [ser.claims_to_verify(completion, sample, info) for completion in completions]
    flat = [claim for of_completion in claims for claim in of_completion]
    if not flat:
        return [[] for _ in completions]
    verdicts = iter(await referee.verify(sample.asked, flat, info, frames))
    return [[next(verdicts) for _ in of_completion] for of_completion in claims]


async def ask_judgements(
    referee: Referee, sample: Sample, completions: Sequence[Completion]
) -> tuple[float | None, ...]:
    """The text judge's score for each answer. A completion without an answer, or to a sample without one, scores 0 and
    is not sent."""

    reference = reference_of(sample)

    async def score(answer: str | None) -> float | None:
        if answer is None or not reference.strip():
            return 0.0
        return await referee.judge(sample.asked, reference, answer)

    return tuple(await asyncio.gather(*(score(completion.answer) for completion in completions)))
