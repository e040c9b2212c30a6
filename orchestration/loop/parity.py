"""The parity gate (promise 5): engine and learner must see the same prompts and compute the same log-probs, or the run
does not start. The engine compares prompt ids at every request; a mismatch in the first requests is reported here.

Log-probs are judged by the mean and the 99.9th percentile of their differences: in bfloat16 the largest of thousands of
tokens is off by tenths with everything right, and the mean is not (docs/prompts.md).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import ray

from evidence.errors import BadInput, RunFailed, UnreadableMedia
from evidence.types import Group, Prompt, Sample
from learner.packing.step import MicroLayout, gather_tokens
from orchestration.loop.batches import layout_step, over_budget
from orchestration.loop.pipeline import Draw, Pipeline
from orchestration.loop.step_frames import fetch_frames
from orchestration.parity_bounds import ParityBounds
from orchestration.settings import TrainConfig
from orchestration.supervision.learner_gang import LearnerGang
from orchestration.supervision.waiting import first_line
from rollout.engine import PromptMismatch
from rollout.frames.store import Lease

ATTEMPTS = 3  # at a group: the engine that draws it may die or hang, and is restarted

log = logging.getLogger(__name__)


class ParityError(RunFailed):
    """Engine and learner disagree, so training would use wrong importance ratios."""


@dataclass(frozen=True)
class Parity:
    """|difference| between the log-probs of engine and learner over so many `tokens`: mean, 99.9th percentile and
    largest."""

    tokens: int
    mean: float
    p999: float
    largest: float

    @classmethod
    def of(cls, differences: np.ndarray) -> Parity:
        """differences: [N], at least one. NaN among them makes all three NaN."""
        p999 = float(np.quantile(differences, 0.999))
        return cls(len(differences), float(differences.mean()), p999, float(differences.max()))

    def __str__(self) -> str:
        return f"mean {self.mean:.2g}, 99.9th percentile {self.p999:.2g}, largest {self.largest:.2g}"


async def check_parity(
    pipeline: Pipeline, gang: LearnerGang, samples: Iterable[Sample], draw: Draw, config: TrainConfig
) -> Parity:
    """The differences in log-prob over one group per rank, of the first `samples` that are usable.

    Raises ParityError if prompts differ, naming the first differing token, or if log-probs differ by more than
    `learner.parity` allows, naming the earliest token. Raises BadInput if no sample is usable.
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
    bounds = config.learner.parity.bounds(config.learner.zero.precision)
    return compared(groups, learner_logprobs, bounds, pipeline.encoder.tokenizer.decode)


async def _draw_group(
    pipeline: Pipeline, number: int, sample: Sample, prompt: Prompt, lease: Lease, draw: Draw
) -> Group:
    """A group of one sample. Frames that are lost are decoded again, without limit.

    Raises UnreadableMedia, and RunFailed if ATTEMPTS engines died or hung."""
    failures = 0
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
        except (ray.exceptions.RayActorError, TimeoutError) as error:
            failures += 1
            if failures == ATTEMPTS:
                reason = first_line(error)
                raise RunFailed(f"sample {sample.id}: not completed in {ATTEMPTS} attempts ({reason})") from None
            log.warning("sample %s: %s", sample.id, first_line(error))


def compared(
    groups: Sequence[Group],
    ours: Sequence[np.ndarray],
    bounds: ParityBounds,
    decode: Callable[[list[int]], object],
) -> Parity:
    """The differences between the engine's log-probs and `ours`, the learner's: float32 [N] for each group, its
    completions concatenated. Raises ParityError if they are above `bounds` or NaN."""
    theirs = [np.concatenate([t.logprobs for t in group.trajectories]) for group in groups]
    differences = [np.abs(a - b) for a, b in zip(ours, theirs)]
    parity = Parity.of(np.concatenate(differences))
    # No bound holds for NaN.
    if parity.mean <= bounds.mean and parity.p999 <= bounds.p999:
        return parity
    # The earliest token within a completion: before it, prompt and completion are seen alike.
    limit = bounds.mean if parity.p999 <= bounds.p999 else bounds.p999
    found = [
        (t, group, k, float(learner[n]), float(engine[n]))
        for group, learner, engine, difference in zip(groups, ours, theirs, differences)
        for n, (k, t) in enumerate(
            (k, t) for k, one in enumerate(group.trajectories) for t in range(len(one.token_ids))
        )
        if not difference[n] <= limit
    ]
    t, group, k, learner_has, engine_has = min(found, key=lambda token: token[0])
    drawn = int(group.trajectories[k].token_ids[t])
    place = f"token {t} of completion {k} to sample {group.sample.id}: id {drawn} ({decode([drawn])!r})"
    raise ParityError(
        f"engine and learner disagree in log-prob ({parity}, over {parity.tokens} tokens; learner.parity allows a mean "
        f"of {bounds.mean:g} and a 99.9th percentile of {bounds.p999:g}), first at {place} has "
        f"{engine_has:.4f} in the engine and {learner_has:.4f} in the learner"
    )
