"""Replies and answers for tests, made from texts by the real parser and the real elections."""

from __future__ import annotations

from collections.abc import Callable

from evaluation.election.candidates import Candidate
from evaluation.election.election import Method, elect
from evaluation.election.perturbations import View
from evidence.grammar import parse
from evidence.types import FrameInfo, Verdict
from orchestration.answering.answers import Answered, Outcome, Reply, cited_places, count_votes, gather_evidence
from referee.reward.ser import SerConfig, claims_to_verify, score

# Eight frames, one per second, as small as those of the embedded world.
INFO = FrameInfo("k", tuple(map(float, range(8))), (56, 56), (112, 112), 7.5)
CLAIMS = (
    "<think>I see <obj>red circle</obj><box>[12,30,33,50]</box>at<t>3.0</t>s and <obj>box</obj><box>[1,1,9,9]</box>"
    "<box>[20,20,40,40]</box>at<t>5.2</t>s</think><answer>bottom left</answer>"
)
CITED = "<think>It falls.</think><keyframes>[3, 5, 9]</keyframes><answer>B</answer>"


def reply(text: str, verdict: Callable[[int], Verdict | None] | None = None, view: View | None = None) -> Reply:
    """`verdict`: of each claim that a referee would be asked about; None without a referee."""
    completion, scores = parse(text), ()
    if verdict is not None:
        verdicts = [verdict(n) for n, _ in enumerate(claims_to_verify(completion, INFO, SerConfig()))]
        scores, _ = score(completion, verdicts, INFO, SerConfig())
    view = view or View()
    cited, not_shown = cited_places(text, view.places(len(INFO.times)))
    evidence = gather_evidence(completion, scores, INFO.times)
    return Reply(text, completion, evidence, cited, not_shown, 0.7, view, len(INFO.times), 90, 40, "stop")


def answered(*replies: Reply, question: str = "Where is it?") -> Answered:
    return Answered(question, INFO, replies)


def elected(method: Method, *texts: str) -> Answered:
    candidates = [Candidate(text, frames=8) for text in texts]
    result = elect(candidates, method)
    replies = tuple(map(reply, texts[: result.used]))
    votes = count_votes(candidates[: result.used], result)
    outcome = Outcome(method.NAME, result, replies, votes, result.used + 2, None)
    return Answered("Where is it?", INFO, (replies[result.winner or 0],), outcome)
