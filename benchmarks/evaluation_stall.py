"""How long the learner is held up by evaluations that go on beside training, with two rollout engines.

Everything that computes only waits, in this process and without Ray: engines, learner, publication and loading. The
rest is real: the loop of `ser train`, admission, the RolloutPool, the engine that is set aside, the scores of the
held-out clips and their bootstrap, and the files. Runs with and without `eval.every` take turns. The stall is the share
by which a step takes longer with it, from the first evaluation on: of the median run of each kind, since other work on
the machine delays some.

`room`: one engine can run all groups in flight. `full`: generation is the bottleneck and both engines are full, so an
engine that evaluates is missed; this is what an evaluation costs, and no wait for it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from evidence.lines import records
from evidence.supervision import Restarts
from evidence.types import FrameInfo, Prompt, Sample, Trajectory
from learner.advantages import Advantages
from orchestration.config import CONFIGS, load_config
from orchestration.interruption import Interruption
from orchestration.loop.journal import Journal
from orchestration.loop.lineages import first
from orchestration.loop.parts import Parts
from orchestration.loop.pipeline import Pipeline
from orchestration.loop.training import Training
from orchestration.preflight import TrainInputs
from orchestration.resuming import Start
from orchestration.settings import TrainConfig
from orchestration.supervision.rollout_pool import SEQUENCES_FACTOR, RolloutPool
from orchestration.train import Run
from referee.reward.graph import RewardGraph
from rollout.dataset.mix import Mixture
from rollout.engine import EngineConfig, WeightStore

ENGINES, GROUPS_PER_STEP, GROUP_SIZE, EVERY = 2, 8, 4, 5
# Seconds, as shares of the learner's step. A clip takes as long as a group: each is as long as its longest completion.
GROUP, LOAD, PUBLISH = 0.4, 0.1, 0.05
# (groups that an engine runs at once, held-out clips). Evaluations take three steps of five in both.
CASES = {"room": (16, 512), "full": (1, 48)}
TOKEN = np.ones(1, np.int32), np.zeros(1, np.float32)
EMPTY = np.zeros(0, np.int32)
INFO = FrameInfo("key", (0.0,), (56, 56), (56, 56), 1.0)


class WaitingEngine:
    """Stands in for a RolloutActor."""

    def __init__(self, group_s: float, load_s: float):
        self.version, self.group_s, self.load_s = 0, group_s, load_s
        for name in ("start", "ping", "update_weights", "generate"):
            setattr(self, name, SimpleNamespace(remote=getattr(self, f"_{name}")))

    async def _start(self) -> None: ...

    async def _ping(self) -> None: ...

    async def _update_weights(self, version: int, _: float) -> None:
        await asyncio.sleep(self.load_s)
        self.version = version

    def _generate(self, _: object, __: object, n: int, *___: object) -> asyncio.Task[Any]:
        return asyncio.create_task(self._drawn(n))

    async def _drawn(self, n: int) -> tuple[tuple[Trajectory, ...], int]:
        oldest = self.version
        await asyncio.sleep(self.group_s)
        spans = ((oldest, 0, 1),) if oldest == self.version else ((oldest, 0, 0), (self.version, 0, 1))
        texts = (f"<think></think><answer>{'AB'[number % 2]}</answer>" for number in range(n))
        return tuple(Trajectory(*TOKEN, spans, text, "stop") for text in texts), oldest


class Lease:
    """Frames that take no memory."""

    frames, info = None, INFO

    async def renew(self) -> None: ...

    def release(self) -> None: ...

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None: ...


class WaitingPipeline(Pipeline):
    """Decodes and encodes nothing."""

    async def prepare(self, sample: Sample) -> tuple[Any, Prompt]:
        return Lease(), Prompt(EMPTY, EMPTY, EMPTY, EMPTY)

    def prefetch(self, samples: Any) -> None: ...


class WaitingLearner:
    """Takes `step_s` for a step."""

    gang = SimpleNamespace(ranks=())

    def __init__(self, step_s: float):
        self.step_s, self.advantages = step_s, Advantages("sum", False)

    async def train(self, *_: object) -> dict[str, float]:
        await asyncio.sleep(self.step_s)
        return {"loss": 0.0, "skipped": 0.0}

    async def export(self, folder: Path) -> None: ...


def nothing(*_: object) -> None: ...


async def none(*_: object) -> bool:
    return False


def counters() -> dict[str, float]:
    return {}


def sample(name: str) -> Sample:
    return Sample(
        name, "waits", "general video QA MCQ", "Where?", "A", options=("A. left", "B. right"), video_path=name
    )


async def trained(folder: Path, places: int, step_s: float, steps: int, clips: int, *overrides: str) -> list[float]:
    """When each step ended, in seconds."""
    names = ["data.train=a", "data.heldout=b", "model.policy=p", "model.referee=r", f"run_dir={folder}"]
    sizes = [f"steps={steps}", f"pacing.groups_per_step={GROUPS_PER_STEP}", f"sampling.group_size={GROUP_SIZE}"]
    rest = ["reward=accuracy_only", "learner.ranks=1", "wandb=disabled", "checkpoint.minutes=null"]
    config = load_config(TrainConfig, CONFIGS / "experiment/quickstart.yaml", [*names, *sizes, *rest, *overrides])
    engine = EngineConfig("none", max_num_seqs=places * GROUP_SIZE // SEQUENCES_FACTOR)
    pool = RolloutPool(engine, (), WeightStore("", "", ""), ENGINES, 0.0, config.limits)
    pool._create = lambda: WaitingEngine(GROUP * step_s, LOAD * step_s)
    referee: Any = SimpleNamespace(restarts=0, counters=counters, facts=list)
    store: Any = SimpleNamespace(no_room=0, counters=counters, lost=nothing)
    weights: Any = SimpleNamespace(lost=False, check=none, limits=config.limits)
    weights.publish = partial(_later, PUBLISH * step_s)
    encoder: Any = None
    pipeline = WaitingPipeline(pool, referee, store, encoder, config.template, RewardGraph(config.reward))
    learner: Any = WaitingLearner(step_s)
    parts = Parts(pipeline, learner, weights, lambda: learner, Restarts(0))
    heldout = [sample(f"clip-{number}") for number in range(clips)]
    inputs = TrainInputs(Mixture([[sample("a")]], [1.0], 0), heldout, encoder, 1, {})
    folder.mkdir()
    journal = Journal(folder)
    run = Run(config, folder, inputs, Start(folder, False), journal, Interruption())
    await pool.start()
    await run._train(Training(config, folder, inputs, parts, run.draw, first(journal)))
    pool.stop()
    parts._watching.cancel()  # type: ignore[union-attr]
    journal.close()
    return [line["seconds"] for line in records(folder / "metrics.jsonl")]


async def _later(seconds: float, *_: object) -> None:
    await asyncio.sleep(seconds)


def measure(step_s: float, steps: int, rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = {"engines": ENGINES, "step_s": step_s, "every": EVERY}
    with tempfile.TemporaryDirectory() as place, mock.patch("ray.kill"):
        folders: Callable[[], Path] = partial(lambda n: Path(place, str(next(n))), itertools.count())
        with redirect_stdout(sys.stderr):
            asyncio.run(trained(folders(), 16, 0.1 * step_s, EVERY, 1))  # whatever happens only once
        for name, (places, clips) in CASES.items():
            seconds: dict[bool, list[float]] = {True: [], False: []}
            evaluations: list[dict[str, Any]] = []
            for evaluates in [False, True] * rounds:
                folder = folders()
                override = f"eval.every={EVERY if evaluates else 'null'}"
                with redirect_stdout(sys.stderr):
                    ends = asyncio.run(trained(folder, places, step_s, steps, clips, override))
                seconds[evaluates].append((ends[-1] - ends[EVERY - 1]) / (steps - EVERY))
                if evaluates:
                    evaluations += records(folder / "eval.jsonl")
            medians = {evaluates: statistics.median(values) for evaluates, values in seconds.items()}
            found[name] = {
                "step_s_without": [round(value, 4) for value in seconds[False]],
                "step_s_with": [round(value, 4) for value in seconds[True]],
                "stall": round(medians[True] / medians[False] - 1, 4),
                "evaluations": sum("not_measured" not in line for line in evaluations),
                "not_measured": sum("not_measured" in line for line in evaluations),
                "evaluation_s": round(statistics.mean(line["seconds"] for line in evaluations if "n" in line), 2),
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="The share by which evaluation beside training delays a step.")
    parser.add_argument("--step-s", type=float, default=1.0, help="seconds of the learner (default %(default)s)")
    parser.add_argument("--steps", type=int, default=30, help="steps of each run (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind (default %(default)s)")
    args = parser.parse_args()
    began = time.monotonic()
    found = measure(args.step_s, args.steps, args.rounds)
    print(json.dumps(found | {"seconds": round(time.monotonic() - began)}, indent=1))


if __name__ == "__main__":
    main()
