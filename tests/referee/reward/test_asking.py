"""Asking for what the terms of a reward need, and for nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

from views import FRAMES, sample, view

from evidence.types import Claim, Verdict
from referee.reward.asking import answered
from referee.reward.graph import RewardGraph
from referee.reward.settings import RewardConfig, TermConfig
from referee.terms.view import GroupView

WITH_CLAIM = "<think><obj>cup</obj><box>[10,10,50,40]</box>at<t>2.0</t>s</think><answer>left</answer>"
WITHOUT_ANSWER = "<think>Hm.</think>"


class Referee:
    def __init__(self) -> None:
        self.verified: list[list[str]] = []
        self.judged: list[tuple[str, ...]] = []

    async def verify(self, question: str, claims: list[Claim], info: Any, frames: Any) -> list[Verdict | None]:
        self.verified.append([claim.phrase for claim in claims])
        return [Verdict(1.0, 0.5), None][: len(claims)]

    async def judge(self, question: str, reference: str, answer: str) -> float | None:
        self.judged.append((question, reference, answer))
        return 0.75


def asked(terms: dict[str, TermConfig], *texts: str) -> tuple[GroupView, Referee]:
    referee, group = Referee(), view(sample(), *texts)
    graph = RewardGraph(RewardConfig(terms=terms))
    return asyncio.run(answered(group, graph, referee, FRAMES, None)), referee


def test_a_reward_without_a_referee_asks_nothing() -> None:
    group, referee = asked({"acc": TermConfig(use="accuracy")}, WITH_CLAIM, WITHOUT_ANSWER)
    assert (referee.verified, referee.judged) == ([], [])
    assert group.judgements == ()


def test_the_claims_of_all_completions_are_asked_in_one_call_and_dealt_back_to_their_completions() -> None:
    group, referee = asked({"ser": TermConfig()}, WITHOUT_ANSWER, WITH_CLAIM, WITH_CLAIM)
    assert referee.verified == [["cup", "cup"]]
    assert list(map(list, group.verdicts)) == [[], [Verdict(1.0, 0.5)], [None]]
    assert not referee.judged


def test_a_completion_without_an_answer_scores_0_and_is_not_sent_to_the_judge() -> None:
    group, referee = asked({"text_judge": TermConfig()}, WITH_CLAIM, WITHOUT_ANSWER)
    assert group.judgements == (0.75, 0.0)
    assert [answer for _, _, answer in referee.judged] == ["left"]
    assert not referee.verified


def test_the_judge_sees_the_answer_of_a_reference_in_prose() -> None:
    graph = RewardGraph(RewardConfig(terms={"text_judge": TermConfig()}))
    for answer, judged in (("It is <answer>left</answer>.", ["left"]), ("None: <answer> </answer>", []), (" ", [])):
        referee = Referee()
        asyncio.run(answered(view(sample(answer=answer), WITH_CLAIM), graph, referee, FRAMES, None))
        assert [reference for _, reference, _ in referee.judged] == judged


def test_an_answer_to_a_sample_without_one_scores_0_and_is_not_sent_to_the_judge() -> None:
    referee, group = Referee(), view(sample(answer=""), WITH_CLAIM)
    graph = RewardGraph(RewardConfig(terms={"text_judge": TermConfig()}))
    assert asyncio.run(answered(group, graph, referee, FRAMES, None)).judgements == (0.0,)
    assert not referee.judged
