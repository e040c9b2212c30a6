"""The parity gate (promise 5): engine and learner must see the same prompts and compute the same log-probs, or the run
does not start. The engine compares prompt ids at every request; what it finds at the first ones is reported here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

import numpy as np
import ray

from evidence.errors import BadInput, RunFailed, UnreadableMedia
from evidence.types import Group, Prompt, Sample
from learner.packing.step import MicroLayout, gather_tokens
from orchestration.loop.batches import layout_step, over_budget
from orchestration.loop.pipeline import Draw, Pipeline
from orchestration.loop.step_frames import fetch_frames
from orchestration.settings import TrainConfig
from orchestration.supervision.learner_gang import LearnerGang
from rollout.engine import PromptMismatch
from rollout.frames.store import Lease

# Of engine and learner alike: both are kept in learner.zero.precision.
IN_BFLOAT16 = (
    "; bfloat16 alone puts some tokens off by tenths, a prompt seen otherwise by units: if these are tenths, raise "
    "learner.parity_bound (docs/prompts.md)"
)


class ParityError(RunFailed):
    """Engine and learner disagree: training would use a wrong importance ratio."""


async def check_parity(
    pipeline: Pipeline, gang: LearnerGang, samples: Iterable[Sample], draw: Draw, config: TrainConfig
) -> float:
    """The largest difference of log-probs over one group per rank.

    Raises ParityError where prompts differ, naming the first differing token, and where log-probs differ by more than
    `learner.parity_bound`, naming the earliest token at which they do.
    """
    ranks, packing = config.learner.ranks, config.learner.packing
    with ExitStack() as released:
        held: list[tuple[Group, Lease]] = []
        for number, sample in enumerate(samples):
            if len(held) == ranks:
                break
            with ExitStack() as leased:
                try:
                    lease, prompt = await pipeline.prepare(sample)
                    leased.enter_context(lease)
                    group = await _drawn(pipeline, number, sample, prompt, lease, draw)
                except UnreadableMedia:
                    continue
                if over_budget(prompt, group.trajectories, packing):
                    continue
                released.enter_context(leased.pop_all())
            held.append((group, lease))
        if not held:
            raise BadInput(
                "data.train: none of its videos can be decoded (`ser data check FILE --media` says why) and, with a "
                f"completion, fits learner.packing.token_budget = {packing.token_budget}"
            )
        groups = [group for group, _ in held]

        def layouts_of(frames: list[ray.ObjectRef]) -> list[list[MicroLayout]]:
            return layout_step(groups, frames, ranks, packing)

        def logprobs_of(layouts: list[list[MicroLayout]]) -> np.ndarray:
            gang.fetch(layouts)  # before anything that the ranks do together
            scored = gather_tokens(layouts, gang.logprobs(layouts))
            gang.let_go()
            return scored

        _, scored = await fetch_frames(held, layouts_of, logprobs_of, pipeline.store)
    tokens = [sum(len(t.token_ids) for t in group.trajectories) for group in groups]
    ours = np.split(scored, np.cumsum(tokens)[:-1])
    hint = IN_BFLOAT16 if config.learner.zero.precision == "bfloat16" else ""
    return worst_difference(groups, ours, config.learner.parity_bound, pipeline.encoder.tokenizer.decode, hint)


async def _drawn(pipeline: Pipeline, number: int, sample: Sample, prompt: Prompt, lease: Lease, draw: Draw) -> Group:
    """A group of one sample, from frames that are decoded anew as often as they are lost. Raises UnreadableMedia."""
    while True:
        await lease.renew()
        try:
            trajectories, oldest = await pipeline.rollout_pool.generate(
                lambda version: True, prompt, lease.frames, draw.n, draw.temperature, draw.max_tokens, number
            )
            return Group(number, sample, lease.info, prompt, trajectories, oldest)
        except PromptMismatch as error:
            # Wrapped by Ray: its text then holds the actor's stack trace, its cause does not.
            raise ParityError(f"sample {sample.id}: {getattr(error, 'cause', error)}") from None
        except ray.exceptions.ObjectLostError as error:
            if not pipeline.store.lost(error):
                raise


def worst_difference(
    groups: Sequence[Group],
    ours: Sequence[np.ndarray],
    bound: float,
    decode: Callable[[list[int]], str],
    hint: str = "",
) -> float:
    """The largest difference between the engine's log-probs and `ours`, float32 [N] per group: its completions one
    after another. Raises ParityError, with `hint` at its end, if one is above `bound` or not a number."""
    theirs = [np.concatenate([t.logprobs for t in group.trajectories]) for group in groups]
    differences = [np.abs(a - b) for a, b in zip(ours, theirs)]
    # numpy's max keeps a NaN, and a NaN is within no bound.
    worst = float(np.max([each.max() for each in differences]))
    for group, difference, learner, engine in zip(groups, differences, ours, theirs):
        beyond = np.flatnonzero(~(difference <= bound))
        if not len(beyond):
            continue
        lengths = [len(t.token_ids) for t in group.trajectories]
        token = np.concatenate([np.arange(n) for n in lengths])
        completion = np.repeat(np.arange(len(lengths)), lengths)
        # The earliest in its own completion tells most: at token 0 the prompts already differ, later ones did not.
        at = beyond[token[beyond].argmin()]
        drawn = int(group.trajectories[completion[at]].token_ids[token[at]])
        raise ParityError(
            f"engine and learner disagree by up to {worst:.2g} in log-prob (learner.parity_bound = {bound}), first at "
            f"token {token[at]} of completion {completion[at]} to sample {group.sample.id}: id {drawn} "
            f"({decode([drawn])!r}) has {engine[at]:.4f} in the engine and {learner[at]:.4f} in the learner{hint}"
        )
    return worst
