"""The held-out evaluation of the policy that the engines hold: completions, verdicts, records, and their summary."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import ray

from evaluation.heldout import ClipRecord, record
from evidence.errors import BadInput, UnreadableMedia
from evidence.types import Sample
from orchestration.loop.group_maker import Draw, Pipeline
from orchestration.reporting.summary import Evaluation
from referee.reward.ser import Ser

log = logging.getLogger(__name__)
AT_ONCE = 64
ATTEMPTS = 3


async def evaluate(pipeline: Pipeline, ser: Ser, samples: Sequence[Sample], draw: Draw, seed: int) -> list[ClipRecord]:
    """One completion per sample, judged anew by `ser`: the referee forgets what it said before, but for what is on disk
    (`referee.cache_dir`), which runs share.

    Left out are clips that cannot be read, or that got no completion or verdict in ATTEMPTS. Raises BadInput if that
    leaves none.
    """
    await pipeline.referee.forget()
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, sample: Sample) -> ClipRecord | None:
        for _ in range(ATTEMPTS):
            try:
                found = await attempt(number, sample)
            except UnreadableMedia:
                return None
            except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError, TimeoutError) as error:
                # An engine that died is started anew; frames that went with their node are decoded anew.
                pipeline.store.lost(error)
                log.warning("held-out clip %s: %s", sample.id, error)
                continue
            if not np.isnan(found.reward):
                return found
        return None

    async def attempt(number: int, sample: Sample) -> ClipRecord:
        async with gate:
            lease, prompt = await pipeline.look(sample)
            with lease:
                (trajectory,), _ = await pipeline.rollout_pool.generate(
                    lambda version: version == pipeline.rollout_pool.published,
                    prompt,
                    lease.frames,
                    1,
                    draw.temperature,
                    draw.max_tokens,
                    seed * 1_000_003 + number,
                )
                completion = pipeline.read(trajectory.text, lease.info)
                (verdicts,) = await pipeline.verify(ser, sample, [completion], lease.info, lease.frames)
            return record(sample, lease.info, trajectory.text, completion, verdicts, ser)

    found = await asyncio.gather(*(one(n, s) for n, s in enumerate(samples)))
    records = [r for r in found if r is not None]
    if samples and not records:
        raise BadInput("data.heldout: none of its clips can be evaluated; `ser data check FILE --media` says why")
    return records


def write_records(path: Path, records: Sequence[ClipRecord]) -> None:
    """One JSON line per clip: the completion, as `ser score` takes it, its reward and what the reward never saw."""
    with path.open("w", encoding="utf-8") as file:
        for one in records:
            plain = {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in asdict(one).items()}
            file.write(json.dumps({"id": plain.pop("clip"), **plain}) + "\n")


def as_evaluation(records: Sequence[ClipRecord]) -> Evaluation:
    """Raises ValueError if a verdict is missing: means over fewer clips would not compare."""
    missing = [r.clip for r in records if np.isnan(r.reward)]
    if missing:
        raise ValueError(f"{len(missing)} held-out clips have no verdict, {missing[0]} first; is the referee alive?")

    def column(name: str) -> np.ndarray:
        return np.array([getattr(r, name) for r in records], np.float64)

    return Evaluation(
        clips=tuple(r.clip for r in records),
        reward=column("reward"),
        accuracy=column("accuracy"),
        iou=column("iou"),
        claims=column("claims"),
        valid_claims=column("valid_claims"),
        box_area=column("box_area"),
    )
