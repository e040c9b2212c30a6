"""Turns scored groups into the input of each learner rank: first the layout of the forwards, then the loss targets.

These are two functions because the reference policy scores the laid-out tokens between them. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evidence.types import Group, Prompt, ScoredGroup, Trajectory
from learner.aggregation import token_weights
from learner.packing.shared_prefix import make_unit, sequence_tokens
from learner.packing.step import MicroLayout, StepTargets, lay_out
from learner.settings import PackingConfig
from orchestration.loop.admission import StaleBatch


def layout_step(
    groups: Sequence[Group], frames: Sequence[Any], ranks: int, packing: PackingConfig
) -> list[list[MicroLayout]]:
    """The forwards of each rank over all completions of a step. `frames[i]`: a ref to the frames of groups[i].

    Raises ValueError for a group that is over_budget.
    """
    units = [
        make_unit([g.prompt] * len(g.trajectories), [t.token_ids for t in g.trajectories], [(g.frames.key, ref)])
        for g, ref in zip(groups, frames, strict=True)
    ]
    return lay_out(units, ranks, packing)


def step_targets(
    groups: Sequence[ScoredGroup],
    advantages: Sequence[np.ndarray],
    aggregate: str = "sequence_mean",
    max_length: int = 0,
) -> StepTargets:
    """The loss targets of every token of a step. `advantages[i]`: float32 [G], for the completions of groups[i].
    `aggregate`, `max_length`: as in token_weights."""
    trajectories = [t for scored in groups for t in scored.group.trajectories]
    lengths = np.array([len(t.token_ids) for t in trajectories])
    return StepTargets(
        weights=token_weights(lengths, aggregate, max_length),
        advantages=np.repeat(np.concatenate(advantages), lengths).astype(np.float32),
        behaviour=np.concatenate([t.logprobs for t in trajectories]),
    )


def check_versions(groups: Sequence[Group], version: int) -> None:
    """Compare the oldest version of each group of a step, from which its age was computed, with what the engines
    recorded token by token. Raises StaleBatch: the step that starts from `version` would train on tokens older than its
    age says, or newer than any published weights."""
    for group in groups:
        drawn = [span[0] for trajectory in group.trajectories for span in trajectory.version_spans]
        if drawn and not group.oldest_version <= min(drawn) <= max(drawn) <= version:
            raise StaleBatch(
                f"group {group.id} counts as drawn by versions {group.oldest_version} to {version}, but its tokens "
                f"were drawn by versions {min(drawn)} to {max(drawn)}"
            )


def over_budget(prompt: Prompt, trajectories: Sequence[Trajectory], packing: PackingConfig) -> bool:
    """Whether some completion does not fit into a forward even alone."""
    longest = max(len(t.token_ids) for t in trajectories)
    return sequence_tokens(len(prompt.token_ids), longest) > packing.token_budget
