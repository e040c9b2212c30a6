"""The parity gate (promise 5): engine and learner must see the same prompts and compute the same log-probs, or the run
does not start. The engine compares prompt ids at every request; a mismatch in the first requests is reported here."""

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

# For runs with learner.zero.precision = bfloat16, which both engine and learner then use.
IN_BFLOAT16 = (
    "; bfloat16 alone explains differences of tenths, a different prompt causes differences of units: if these are "
    "tenths, raise learner.parity_bound (docs/prompts.md)"
)


class ParityError(RunFailed):
    """Engine and learner disagree, so training would use wrong importance ratios."""


async def check_parity(
    pipeline: Pipeline, gang: LearnerGang, samples: Iterable[Sample], draw: Draw, config: TrainConfig
) -> float:
    """The largest difference in log-prob over one group per rank, of the first `samples` that are usable.

    Raises ParityError if prompts differ, naming the first differing token, or if log-probs differ by more than
    `learner.parity_bound`, naming the earliest such token. Raises BadInput if no sample is usable.
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
                    group = await _draw_group(pipeline, number, sample, prompt, lease, draw)
                except UnreadableMedia:
                    continue
                if over_budget(prompt, group.trajectories, packing):
                    continue
                released.enter_context(leased.pop_all())
            held.append((group, lease))
        if not held:
            raise BadInput(
                "data.train: no sample has a readable video (`ser data check FILE --media` says why) and a prompt that "
                f"with a completion fits learner.packing.token_budget = {packing.token_budget}"
            )
        groups = [group for group, _ in held]

        def layouts_of(frames: list[ray.ObjectRef]) -> list[list[MicroLayout]]:
            return layout_step(groups, frames, ranks, packing)

        def logprobs_of(layouts: list[list[MicroLayout]]) -> np.ndarray:
            gang.fetch(layouts)  # before any collective
            scored = gather_tokens(layouts, gang.logprobs(layouts))
            gang.drop_frames()
            return scored

        _, scored = await fetch_frames(held, layouts_of, logprobs_of, pipeline.store)
    tokens = [sum(len(t.token_ids) for t in group.trajectories) for group in groups]
    learner_logprobs = np.split(scored, np.cumsum(tokens)[:-1])
    hint = IN_BFLOAT16 if config.learner.zero.precision == "bfloat16" else ""
    decode = pipeline.encoder.tokenizer.decode
    return worst_difference(groups, learner_logprobs, config.learner.parity_bound, decode, hint)


async def _draw_group(
    pipeline: Pipeline, number: int, sample: Sample, prompt: Prompt, lease: Lease, draw: Draw
) -> Group:
    """A group of one sample. Frames that are lost are decoded again, without limit. Raises UnreadableMedia."""
    while True:
        await lease.renew()
        try:
            trajectories, oldest = await pipeline.rollout_pool.generate(
                lambda version: version == pipeline.rollout_pool.published,
                prompt,
                lease.frames,
                draw.n,
                draw.temperature,
                draw.max_tokens,
                number,
            )
            return Group(number, sample, lease.info, prompt, trajectories, oldest)
        except PromptMismatch as error:
            # Ray wraps the error: its text holds the actor's stack trace, the text of its cause does not.
            raise ParityError(f"sample {sample.id}: {getattr(error, 'cause', error)}") from None
        except ray.exceptions.ObjectLostError as error:
            if not pipeline.store.lost(error):
                raise


def worst_difference(
    groups: Sequence[Group],
    ours: Sequence[np.ndarray],
    bound: float,
    decode: Callable[[list[int]], object],
    hint: str = "",
) -> float:
    """The largest difference between the engine's log-probs and `ours`, the learner's: float32 [N] for each group, its
    completions concatenated. Raises ParityError, ending with `hint`, if a difference is above `bound` or NaN."""
    theirs = [np.concatenate([t.logprobs for t in group.trajectories]) for group in groups]
    differences = [np.abs(a - b) for a, b in zip(ours, theirs)]
    # numpy's max propagates NaN, and no bound holds for NaN.
    worst = float(np.max([difference.max() for difference in differences]))
    for group, difference, learner, engine in zip(groups, differences, ours, theirs):
        beyond = np.flatnonzero(~(difference <= bound))
        if not len(beyond):
            continue
        lengths = [len(t.token_ids) for t in group.trajectories]
        token = np.concatenate([np.arange(n) for n in lengths])
        completion = np.repeat(np.arange(len(lengths)), lengths)
        # The earliest token within a completion tells most: token 0 points to the prompts, a later one does not.
        at = beyond[token[beyond].argmin()]
        drawn = int(group.trajectories[completion[at]].token_ids[token[at]])
        raise ParityError(
            f"engine and learner disagree by up to {worst:.2g} in log-prob (learner.parity_bound = {bound}), first at "
            f"token {token[at]} of completion {completion[at]} to sample {group.sample.id}: id {drawn} "
            f"({decode([drawn])!r}) has {engine[at]:.4f} in the engine and {learner[at]:.4f} in the learner{hint}"
        )
    return worst
