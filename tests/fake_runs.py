"""The real loop of `ser train` with a fake learner and fake engines that answer at once, and without processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from evidence.supervision import Restarts
from evidence.types import FrameInfo, Prompt, Sample, Trajectory
from learner.advantages import Advantages
from orchestration.config import CONFIGS, load_config
from orchestration.interruption import Interruption
from orchestration.loop.admission import Admission
from orchestration.loop.group_maker import ReadyGroup
from orchestration.loop.journal import Journal
from orchestration.loop.ledger import Ledger
from orchestration.loop.lineages import Lineage, first
from orchestration.loop.parts import Parts
from orchestration.loop.pipeline import Pipeline
from orchestration.loop.run_state import RunState
from orchestration.loop.training import Training
from orchestration.preflight import TrainInputs
from orchestration.reporting.stalls import EngineFacts, RefereeFacts
from orchestration.resuming import Start
from orchestration.settings import TrainConfig
from orchestration.train import Run
from referee.reward.graph import RewardGraph
from referee.terms.view import GroupView
from rollout.dataset.mix import Mixture
from rollout.template import PromptTemplate

INFO = FrameInfo("key", (0.0,), (56, 56), (56, 56), 1.0)
EMPTY = np.zeros(0, np.int32)
SAMPLE = Sample("a", "test", "general video QA MCQ", "Where?", "A", options=("A. left", "B. right"), video_path="a.mp4")
GROUPS_PER_STEP = 2
NO_SKIPS = repeat(False)


class FakeLease:
    frames, info = None, INFO
    unreleased = 0

    def __init__(self) -> None:
        FakeLease.unreleased += 1

    async def renew(self) -> None: ...

    def release(self) -> None:
        FakeLease.unreleased -= 1


class FakeRolloutPool:
    """Answers A and B for a group that `varies`, else only A; always with the current version. `fails`: groups whose
    generation times out."""

    restarts = refused_updates = queue = 0
    update_s = 0.0

    def engine_facts(self) -> list[EngineFacts]:
        return []

    def running(self, task: asyncio.Task[Any]) -> None: ...

    def take_begun(self) -> list[int]:
        return [2]

    def take_done(self) -> list[tuple[float, int]]:
        return [(1.0, 2)]

    admission: Admission

    def __init__(self, varies: Callable[[int], bool], fails: Callable[[int], bool]):
        self.varies, self.fails = varies, fails
        self.drawn: list[int] = []

    async def generate(self, *arguments: Any) -> tuple[tuple[Trajectory, ...], int]:
        n, group = arguments[3], arguments[6]  # the seed, which is the number of the group in a run with seed 0
        self.drawn.append(group)
        await asyncio.sleep(0)
        if self.fails(group):
            raise TimeoutError
        texts = ["<think></think><answer>A</answer>", f"<think></think><answer>{'AB'[self.varies(group)]}</answer>"]
        token = np.ones(1, np.int32), np.zeros(1, np.float32), ((self.admission.version, 0, 1),)
        return tuple(Trajectory(*token, text, "stop") for text in texts * (n // 2)), self.admission.version

    async def settled(self) -> None: ...


class SmallPipeline(Pipeline):
    """Skips decoding and encoding, and records the training progress that the reward sees."""

    progress: list[float]

    def view(self, sample: Sample, info: FrameInfo, trajectories: tuple[Trajectory, ...], progress: float) -> GroupView:
        self.progress.append(progress)
        return super().view(sample, info, trajectories, progress)

    async def prepare(self, sample: Sample) -> tuple[Any, Prompt]:
        return FakeLease(), Prompt(EMPTY, EMPTY, EMPTY, EMPTY)

    def prefetch(self, samples: Any) -> None:
        list(samples)


class FakeStore:
    no_room = 0

    def lost(self, error: Exception) -> None: ...

    def counters(self) -> dict[str, int]:
        return {}


class FakeReferee:
    restarts = 0

    def facts(self) -> list[RefereeFacts]:
        return []

    def counters(self) -> dict[str, float]:
        return {}


class FakeLearner:
    """Records the groups of each step. `skips`: whether each attempt at a step is skipped."""

    exported: Path | None = None
    gang = None

    def __init__(self, config: TrainConfig, skips: Iterator[bool]):
        self.config, self.skips = config, skips
        self.advantages = Advantages(config.reward.normalise, False)
        self.batches: list[tuple[int, ...]] = []
        self.steps: list[int] = []

    async def train(self, groups: list[ReadyGroup], step: int, store: Any) -> dict[str, float]:
        self.steps.append(step)
        if next(self.skips):
            return {"loss": np.nan, "skipped": 1.0}
        self.batches.append(tuple(ready.scored.group.id for ready in groups))
        if self.config.algorithm.dynamic_sampling:
            advantages = Advantages(self.config.reward.normalise, False).of_step([ready.scored for ready in groups])
            assert all(np.abs(of_group).max() > 0.1 for of_group in advantages), "each group has an advantage"
        return {"loss": 0.0, "skipped": 0.0}

    async def export(self, folder: Path) -> None:
        self.exported = folder


class RecordingParts(Parts):
    """Records the published versions."""

    versions: list[int]

    async def publish(self, version: int, limit_s: float) -> None:
        await self.pipeline.rollout_pool.settled()
        self.versions.append(version)

    def watch_weights(self, wake: Callable[[], object]) -> None: ...

    async def republish_if_lost(self, version: int) -> None: ...


def started(
    tmp_path: Path,
    varies: Callable[[int], bool],
    fails: Callable[[int], bool],
    steps: int,
    dynamic: bool = True,
    skips: Iterator[bool] = NO_SKIPS,
    overrides: tuple[str, ...] = (),
    state: RunState | None = None,
) -> tuple[Run, Training]:
    """A run of `steps` steps that starts no processes. `varies`, `fails`: as in FakeRolloutPool; `skips`: as in
    FakeLearner. `state`: of the checkpoint that it goes on from."""
    names = ["data.train=a", "data.heldout=b", "model.policy=p", "model.referee=r", f"run_dir={tmp_path}"]
    sizes = [f"steps={steps}", f"pacing.groups_per_step={GROUPS_PER_STEP}", "learner.ranks=1", "reward=accuracy_only"]
    switches = [
        "wandb=disabled",
        "checkpoint.minutes=null",
        "sampling.group_size=4",
        f"algorithm.dynamic_sampling={dynamic}",
    ]
    overrides = (*names, *sizes, *switches, *overrides)
    config = load_config(TrainConfig, CONFIGS / "experiment/quickstart.yaml", overrides)
    inputs = TrainInputs(Mixture([[SAMPLE]], [1.0], 0), [], None, 1, {})  # type: ignore[arg-type]
    tmp_path.mkdir(exist_ok=True)
    run = Run(config, tmp_path, inputs, Start(tmp_path, False), Journal(tmp_path), Interruption())
    pool = FakeRolloutPool(varies, fails)
    fakes: Any = pool, FakeReferee(), FakeStore(), None
    pipeline = SmallPipeline(*fakes, PromptTemplate(), RewardGraph(config.reward))
    pipeline.progress = []
    learner: Any = FakeLearner(config, skips)
    weights: Any = SimpleNamespace(metrics={})
    parts = RecordingParts(pipeline, learner, weights, lambda: learner, Restarts(0))
    parts.versions = []
    begin = Lineage(state, Ledger.restore(state.ledger)) if state else first(run.journal)
    training = Training(config, tmp_path, inputs, parts, run.draw, begin)
    pool.admission = training.admission
    return run, training


def trained(*arguments: Any, **options: Any) -> Training:
    run, training = started(*arguments, **options)
    FakeLease.unreleased = 0
    try:
        asyncio.run(run._train(training))
    finally:
        training.ledger.check()
    assert FakeLease.unreleased == 0
    return training
