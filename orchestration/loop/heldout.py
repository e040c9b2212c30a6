"""Held-out evaluation of the policy that the engines hold: completions, verdicts, records, and their summary."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluation.comparison import Evaluation, as_evaluation, known_mean
from evaluation.heldout import ClipRecord, record
from evidence.errors import BadInput
from evidence.types import Prompt, Sample
from orchestration.loop.clips import CLIPS_AT_ONCE, Complete, each_clip, on_all_engines
from orchestration.loop.pipeline import Draw, Pipeline
from orchestration.reporting.awaiting import awaiting
from orchestration.reporting.display import cell
from orchestration.reporting.heldout_records import DRAWS, records_name, write_records
from orchestration.settings import TrainConfig
from referee.reward.asking import ask_verdicts
from referee.reward.ser import Ser
from rollout.frames.store import Lease


async def evaluate_policy(
    pipeline: Pipeline, config: TrainConfig, heldout: Sequence[Sample], when: str, run_dir: Path
) -> list[Evaluation]:
    """[greedy, at the training temperature], each with its records in `run_dir`; empty without held-out samples. The
    referee forgets its earlier verdicts before each, except for those in `referee.cache_dir`, which runs share.

    `when`: "before" or "after" training, for file names and the line that is printed.
    """
    if not heldout:
        return []
    began = time.monotonic()
    evaluations = []
    with awaiting(f"evaluation {when} training ({len(heldout)} clips)"):
        for name, temperature in zip(DRAWS, (0.0, config.sampling.temperature)):
            draw = Draw(1, temperature, config.sampling.max_tokens)
            await pipeline.referee.forget()
            complete = on_all_engines(pipeline.rollout_pool)
            records = await evaluate(pipeline, config.eval.ser, heldout, draw, config.seed, complete)
            write_records(run_dir / records_name(when, name), records)
            evaluations.append(as_evaluation(records))
    greedy = evaluations[0]
    print(
        f"held-out clips {when}: r_SER {greedy.reward.mean():.3f}, box IoU {cell(known_mean(greedy.iou))}, accuracy "
        f"{greedy.accuracy.mean():.3f} (greedy, {len(greedy.clips)} of {len(heldout)} clips readable, "
        f"{time.monotonic() - began:.0f} s)",
        flush=True,
    )
    return evaluations


async def evaluate(
    pipeline: Pipeline,
    ser: Ser,
    samples: Sequence[Sample],
    draw: Draw,
    seed: int,
    complete: Complete,
    at_once: int = CLIPS_AT_ONCE,
) -> list[ClipRecord]:
    """One completion per sample, drawn by `complete` and judged by `ser`.

    Clips that cannot be read, or that got no completion or verdict in several attempts, are left out. Raises BadInput
    if none is left.
    """

    async def attempt(number: int, sample: Sample, lease: Lease, prompt: Prompt) -> ClipRecord | None:
        trajectory = await complete(prompt, lease.frames, draw.temperature, draw.max_tokens, seed * 1_000_003 + number)
        completion = pipeline.parse(trajectory.text, lease.info)
        (verdicts,) = await ask_verdicts(pipeline.referee, ser, sample, [completion], lease.info, lease.frames)
        clip = record(sample, lease.info, trajectory.text, completion, verdicts, ser)
        return None if np.isnan(clip.reward) else clip

    clips = await each_clip(pipeline, samples, attempt, at_once)
    records = [clip for clip in clips if clip is not None]
    if samples and not records:
        raise BadInput("data.heldout: none of its clips can be evaluated; `ser data check FILE --media` says why")
    return records
