"""An answer with its evidence as plain data for programs, and as lines for a terminal. Pure."""

from __future__ import annotations

from typing import Any

from evidence.visible import one_line
from orchestration.answering.answers import Answered, Evidence, Outcome, Reply
from orchestration.answering.page_election import reason
from orchestration.reporting.samples import claim_line, scored_claim
from referee.reward.ser import NO_VERDICT

LINE = 160  # characters of model text on one line of a terminal


def evidence_of(answered: Answered, reply: Reply) -> dict[str, Any]:
    """The evidence of one of the answer's completions: boxes in pixels of `frames.size`, frames by number from 0, times
    in seconds. Verdicts are null where no referee was asked or none answered."""
    info = answered.info
    return {
        "answer": reply.answer,
        "claims": [_claim(evidence) for evidence in reply.evidence],
        "keyframes": list(reply.cited),
        "invalid_keyframes": reply.not_shown,
        "frames": {"times": list(info.times), "size": list(info.size), "duration": info.duration},
        "election": None if answered.outcome is None else _election(answered.outcome),
    }


def _claim(evidence: Evidence) -> dict[str, Any]:
    claim, score = evidence.claim, evidence.score
    if score is None:
        verdict = dict.fromkeys(("relevance", "localization", "temporal_penalty", "score"))
        return {**claim_line(claim), "frame": evidence.frame, **verdict, "flag": claim.reason}
    judged = scored_claim(score)
    if score.verdict.flag is not None:  # not asked about
        judged |= {"relevance": None, "localization": None}
    if score.verdict.flag == NO_VERDICT:
        judged |= {"score": None}
    return {**judged, "frame": evidence.frame}


def _election(outcome: Outcome) -> dict[str, Any]:
    elected = outcome.elected
    return {
        "method": outcome.method,
        "winner": elected.winner,
        "margin": elected.margin,
        "reason": reason(outcome),
        "begun": outcome.begun,
        "sufficiency": outcome.sufficiency,
        "votes": [
            {"answer": vote.answer, "votes": vote.votes, "candidates": list(vote.supporters)} for vote in outcome.votes
        ],
        "candidates": [
            {
                "answer": reply.answer,
                "score": elected.scores[number],
                "vote": elected.weights[number],
                "temperature": reply.temperature,
                "input": reply.view.name,
                "text": reply.text,
            }
            for number, reply in enumerate(outcome.replies)
        ],
    }


def lines(answered: Answered) -> list[str]:
    """The answer for a terminal: its text, a line for each claim, and the reason of an election."""
    reply = answered.replies[0]
    answer = "(the model wrote no answer)" if reply.answer is None else one_line(reply.answer, LINE)
    printed = [answer, *(f"  {_claim_text(evidence)}" for evidence in reply.evidence)]
    if reply.cited:
        times = ", ".join(f"{answered.info.times[frame]:.1f}" for frame in reply.cited)
        printed.append(f"  key frames at {times} s")
    if not reply.frames:
        printed.append("  no evidence cited")
    if answered.outcome is not None:
        printed.append(one_line(reason(answered.outcome), 4 * LINE))
    return printed


def _claim_text(evidence: Evidence) -> str:
    claim, score = evidence.claim, evidence.score
    parts = [one_line(claim.phrase, LINE) or "(no object)"]
    if claim.time is not None:
        parts.append(
            f"at {claim.time:.1f} s" if claim.until is None else f"from {claim.time:.1f} to {claim.until:.1f} s"
        )
    if claim.box is not None:
        parts.append(f"in [{', '.join(f'{value:.0f}' for value in claim.box)}]")
    flag = claim.reason if score is None else score.verdict.flag
    if flag is not None:
        parts.append(f"({flag})")
    elif score is not None:
        parts.append(
            f"relevance {score.verdict.relevance:.2f}, box fits {score.verdict.localization:.2f}, "
            f"score {score.score:.2f}"
        )
    return "  ".join(parts)
