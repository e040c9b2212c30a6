"""Throughput of the runner of `ser eval BENCH --model` next to its bare engine: `python -m benchmarks.evaluation
--throughput`.

The embedded policy answers questions about clips of the embedded world, greedily. The runner does all that it does in a
command: it finds and decodes the videos, builds prompts, asks the pool of engines, and records every completion. The
bare engine, an engine of the same settings in an actor of its own, is given prompts that are ready and frames that are
decoded, all at once. Both take turns in one run, on clips that neither has seen, and the first of them
alternates. `decoded`: the runner once more on the same clips, whose frames are in the store then, which leaves all
costs but those of decoding.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from evaluation.exams import Ask
from evaluation.faults import Faults
from evidence.types import Prompt
from orchestration.commands.eval_record import opened
from orchestration.commands.eval_run import Request, answer, exam_for, locate
from orchestration.commands.run_files import policy_config
from orchestration.reporting.progress import Progress
from orchestration.supervision.engines import standalone_engine
from orchestration.supervision.standalone_policy import StandalonePolicy, standalone_policy
from rollout.dataset.shapes import make_shapes
from rollout.engine import Engine, EngineConfig
from rollout.frames.decoding import decode
from rollout.prompt import build_prompt

ROOT = Path(__file__).parents[1]
MAX_TOKENS = 96
OVERRIDES = [
    *(f"model={ROOT / 'assets/policy'}", f"max_tokens={MAX_TOKENS}", "engine.max_model_len=512"),
    *("contract.frames=8", "contract.max_pixels=3136", "contract.min_pixels=3136"),
    *("template.frame='{time:.1f}'", "template.question='{question}'"),
    *("cluster.kv_cache_gib=0.25", "cluster.frames_gib=0.2", "cluster.object_store_gib=0.5"),
]


@ray.remote(num_cpus=0)
class Bare:
    """An engine that is given everything at once."""

    async def start(self, config: EngineConfig, banned: tuple[int, ...]) -> None:
        self.engine = await Engine.start(config, banned)

    async def answer(self, prompts: list[Prompt], frames: list[Any]) -> float:
        """The seconds that all completions take."""
        began = time.monotonic()
        work = (self.engine.generate(*given, 1, 0.0, MAX_TOKENS, 0) for given in zip(prompts, frames))
        await asyncio.gather(*work)
        return time.monotonic() - began


async def compare(data: Path, questions: int, turns: int) -> dict[str, Any]:
    config = policy_config(None, OVERRIDES)
    request = Request("data", config.model, data)
    asks = exam_for("data", data, None, config.template, Faults()).asks
    bare_s, runner_s, again_s = [], [], []
    async with standalone_policy(config) as policy:
        own = policy.config
        engine = standalone_engine(own.model, own.contract.frames, own.engine, own.cluster, False, own.seed)
        bare = Bare.remote()
        await bare.start.remote(engine, policy.encoder.banned_ids)
        for turn in range(turns + 1):  # the first warms both up
            part = asks[turn * questions : (turn + 1) * questions]
            first = await bare_seconds(bare, policy, request, part) if turn % 2 else None
            runner = await runner_seconds(policy, request, part)
            again = await runner_seconds(policy, request, part)
            bare_turn = first or await bare_seconds(bare, policy, request, part)
            if turn:
                bare_s.append(bare_turn)
                runner_s.append(runner)
                again_s.append(again)
    return {
        "questions_per_turn": questions,
        "bare_s": [round(seconds, 2) for seconds in bare_s],
        "runner_s": [round(seconds, 2) for seconds in runner_s],
        "runner_decoded_s": [round(seconds, 2) for seconds in again_s],
        "ratio": ratio(bare_s, runner_s),
        "ratio_decoded": ratio(bare_s, again_s),
    }


def ratio(bare_s: Sequence[float], runner_s: Sequence[float]) -> float:
    """The median over the turns of the runner's throughput as a share of the bare engine's."""
    return round(statistics.median(bare / runner for bare, runner in zip(bare_s, runner_s)), 3)


async def bare_seconds(bare: Any, policy: StandalonePolicy, request: Request, asks: Sequence[Ask]) -> float:
    """Seconds of the bare engine; prompts and frames are made before."""
    prompts, frames = [], []
    for ask in asks:
        decoded, info = decode(str(request.data.parent / ask.video), policy.config.contract)
        prompts.append(build_prompt(policy.encoder, policy.config.template, ask.sample, info))
        frames.append(decoded)
    seconds: float = await bare.answer.remote(prompts, frames)
    return seconds


async def runner_seconds(policy: StandalonePolicy, request: Request, asks: Sequence[Ask]) -> float:
    """Seconds of the runner, from the names of the videos to the last line of a new record."""
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder), {"drawn": {}}) as record:
        began = time.monotonic()
        await answer(policy, locate(asks, request, record), record, Progress("data", len(asks)))
        seconds = time.monotonic() - began
        if len(record.lines) != len(asks):
            raise RuntimeError(f"only {len(record.lines)} of {len(asks)} questions were completed")
    return seconds


def measure(questions: int, turns: int, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        make_shapes(data, train=0, val=0, test=questions * (turns + 1), seed=seed)
        return asyncio.run(compare(data / "test.json", questions, turns))
