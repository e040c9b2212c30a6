"""FLOPs of a step, against those that the benchmark computes from its packed batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoConfig

from benchmarks.flops import language_flops, tower_flops
from benchmarks.learner import parts_of
from benchmarks.learner_task import Task, make_task
from evidence.types import FrameInfo, Group, Sample, Trajectory
from learner.settings import LoraSpec, PackingConfig, PolicyConfig
from orchestration.config import CONFIGS, load_config
from orchestration.loop.step_rates import StepRates, effective_share
from orchestration.planning.achieved import step_flops
from orchestration.planning.gpus import GPUS
from orchestration.planning.shapes import Shape, read_shape
from orchestration.settings import TrainConfig

COMPLETION, COMPLETIONS = 40, 3


@pytest.fixture(scope="module")
def task(tiny_model: Path) -> Task:
    return make_task(tiny_model, prompt_tokens=300, completion_tokens=COMPLETION, group=COMPLETIONS, sizes=None)


@pytest.fixture(scope="module")
def shape(tiny_model: Path) -> Shape:
    return read_shape("model.policy", str(tiny_model))


@pytest.fixture(scope="module")
def group(task: Task) -> Group:
    ids = np.zeros(COMPLETION, np.int32), np.zeros(COMPLETION, np.float32), ((0, 0, COMPLETION),)
    drawn = tuple(Trajectory(*ids, "", "stop") for _ in range(COMPLETIONS))
    sample = Sample("s", "test", "a", "Where?", "left", video_path="a.mp4")
    return Group(0, sample, FrameInfo("key", (0.0,), (56, 56), (56, 56), 1.0), task.prompt, drawn, 0)


@pytest.mark.parametrize("mode", ["prefix", "sequence", "none"])
def test_they_are_those_of_the_batches_that_are_run(
    mode: str, task: Task, group: Group, shape: Shape, tiny_model: Path
) -> None:
    config = AutoConfig.from_pretrained(tiny_model)
    (forwards,) = parts_of([task], mode, budget=4000)
    language = sum(language_flops(config.get_text_config(), micro.batch) for micro in forwards)
    tower = sum(tower_flops(config.vision_config, micro.batch.grids) for micro in forwards)
    computed = step_flops(shape, [group], PackingConfig(mode=mode), PolicyConfig())
    assert computed == pytest.approx(language + tower, rel=0.03)
    trained = step_flops(shape, [group, group], PackingConfig(mode=mode), PolicyConfig(train_vision=True))
    assert trained == pytest.approx(2 * (language + 3 * tower), rel=0.03)


def test_frozen_weights_have_no_gradients(group: Group, shape: Shape) -> None:
    packing, whole, adapters = PackingConfig(), PolicyConfig(), PolicyConfig(lora=LoraSpec())
    blind = [replace(group, prompt=replace(group.prompt, grids=np.zeros((0, 3), np.int32)))]
    all_trained = step_flops(shape, blind, packing, whole)
    assert step_flops(shape, blind, packing, adapters) == pytest.approx(2 / 3 * all_trained)


def test_rates_are_of_one_rank_and_the_utilisation_of_a_gpu_that_is_known(group: Group, shape: Shape) -> None:
    overrides = ["learner.ranks=2", "cluster.gpus_per_rank=1", "cluster.gpus_per_engine=1"]
    config = load_config(TrainConfig, CONFIGS / "experiment/quickstart.yaml", overrides)
    flops = step_flops(shape, [group], config.learner.packing, config.learner.policy)
    rates = StepRates(config, shape, "NVIDIA L40S").of_step([group], 4.0)
    assert rates["tokens_per_s"] == COMPLETIONS * COMPLETION / 4
    assert rates["tflops"] == pytest.approx(flops / 8 / 1e12)
    assert rates["mfu"] == pytest.approx(flops / 8 / GPUS["l40s"].flops)
    for unknown in ("", "NVIDIA H100 PCIe", "a CPU"):
        assert "mfu" not in StepRates(config, shape, unknown).of_step([group], 4.0)


def test_the_effective_share_of_tokens_falls_as_their_ratios_spread() -> None:
    even = {"weight": 1.0, "ratio": 2.0, "ratio_squared": 4.0}
    assert effective_share(even) == {"effective_share": 1.0}
    # Of four tokens, one with ratio 4 and three with 0: it stands for all.
    assert effective_share({"weight": 1.0, "ratio": 1.0, "ratio_squared": 4.0}) == {"effective_share": 0.25}
    assert effective_share({"weight": 2.0, "ratio": 2.0, "ratio_squared": 2.0}) == {"effective_share": 1.0}
    for of_own_loss in ({"loss": 1.0}, {"ratio_squared": 4.0}, {"ratio_squared": 4.0, "weight": 1.0}):
        assert effective_share(of_own_loss) == {}
    assert effective_share({"ratio": 0.0, "ratio_squared": 0.0, "weight": 1.0}) == {}
