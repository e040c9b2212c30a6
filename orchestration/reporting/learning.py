"""Warns about a run that has nothing to learn from: equal rewards, or completions without the evidence that is
rewarded. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

from evidence.grammar import parse
from evidence.types import ScoredGroup
from orchestration.loop.rejections import no_variance
from referee.reward.settings import RewardConfig

# Steps in a row that are judged together: one may by chance hold only questions that are too easy or too hard.
WATCHED_STEPS = 5
# A policy that knows the format writes a claim in nearly every completion (.98 and more in the quickstart), one that
# does not know it in none; in between it is learning it.
FEW = 0.05
# Steps until the warning is repeated: often enough to stay in view, too rarely to fill the log.
REPEATED_AFTER = 50
# Terms that pay for a claim about any sample that they apply to.
CLAIM_TERMS = ("ser", "claim_format")

UNKNOWN_FORMAT = "the policy has probably not learnt the format: warm-start it with `ser sft` (docs/sft.md)"
NO_CONTRAST = (
    "the questions are probably too easy or too hard for this policy, or the reward does not tell its completions "
    "apart: compare reward/* in metrics.jsonl with the completions in samples.jsonl"
)


class LearningWatch:
    """Watches the steps of a run. `group_baseline`: whether rewards are compared within their group, so that a group
    with equal rewards has no advantage."""

    def __init__(self, reward: RewardConfig, group_baseline: bool):
        self._reward, self._group_baseline = reward, group_baseline
        self._steps: deque[Counter[str]] = deque(maxlen=WATCHED_STEPS)
        self._warned_at = -REPEATED_AFTER

    def step_ended(self, step: int, groups: Sequence[ScoredGroup]) -> str | None:
        """A warning if the last WATCHED_STEPS steps call for one, else None. `groups`: those of optimizer step
        `step`."""
        self._steps.append(self._counts(groups))
        if len(self._steps) < WATCHED_STEPS or step - self._warned_at < REPEATED_AFTER:
            return None
        total = Counter[str]()
        for counts in self._steps:
            total.update(counts)
        warning = _warning(total, self._group_baseline)
        if warning:
            self._warned_at = step
        return warning

    @property
    def state(self) -> dict[str, Any]:
        """The last steps and the last warning, as data that JSON can represent."""
        return {"steps": [dict(counts) for counts in self._steps], "warned_at": self._warned_at}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the `state` of another run."""
        self._steps.extend(Counter(counts) for counts in state["steps"])
        self._warned_at = state["warned_at"]

    def _counts(self, groups: Sequence[ScoredGroup]) -> Counter[str]:
        """groups, and those of equal rewards; completions, and those with an answer; completions in which a claim would
        be rewarded, and those with a valid one."""
        counts = Counter[str](groups=len(groups))
        for scored in groups:
            paid = scored.paid if self._reward.normalise == "each" else {}
            counts["equal"] += no_variance(scored.rewards, paid)
            pays = self._pays_for_claims(scored.group.sample.task)
            for trajectory in scored.group.trajectories:
                completion = parse(trajectory.text)
                counts["completions"] += 1
                counts["answers"] += completion.answer is not None
                counts["asked for claims"] += pays
                counts["with a claim"] += pays and any(claim.valid for claim in completion.claims)
        return counts

    def _pays_for_claims(self, task: str) -> bool:
        return any(
            (term.use or name) in CLAIM_TERMS and (not term.tasks or task in term.tasks)
            for name, term in self._reward.terms.items()
        )


def _warning(total: Counter[str], group_baseline: bool) -> str | None:
    """The warning about several steps together. `total`: as from LearningWatch._counts."""
    equal = group_baseline and total["equal"] == total["groups"]
    without_claims = total["with a claim"] < FEW * total["asked for claims"]
    without_answers = total["answers"] < FEW * total["completions"]
    facts = []
    if equal:
        facts.append("in every group all completions got the same reward, so there is nothing to learn from")
    if without_claims:
        facts.append(f"{total['with a claim']} of {total['asked for claims']} completions hold a claim")
    elif equal and without_answers:
        facts.append(f"{total['answers']} of {total['completions']} completions hold an answer")
    if not facts:
        return None
    reason = UNKNOWN_FORMAT if without_claims or without_answers else NO_CONTRAST
    return f"the last {WATCHED_STEPS} steps: {'; '.join(facts)}; {reason}"
