"""Plans of the GPU config: what fits, what is said where it does not, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evidence.errors import BadInput
from orchestration import cli
from orchestration.config import load_config
from orchestration.planning.gpus import GPUS
from orchestration.planning.memory import GIB, node_memory
from orchestration.planning.plan import Planner
from orchestration.planning.shapes import shipped
from orchestration.settings import TrainConfig

GPU_CONFIG = Path(__file__).parents[3] / "configs/experiment/gpu/qwen2_5_vl_7b_8.yaml"
KEYS = (
    *("fits", "gib_per_gpu", "gib_per_node", "step_s", "stages", "staleness_mean", "idle", "async_gain"),
    *("hours", "gpu_hours"),
)


def planner(*overrides: str, gpu: str = "h100-80") -> Planner:
    return Planner(load_config(TrainConfig, GPU_CONFIG, overrides), gpu, GPUS[gpu])


def learner(*overrides: str) -> dict[str, float]:
    plan = planner(*overrides)
    return {name: size / GIB for name, size in plan.roles(plan.split)[0].components.items()}


def test_the_config_fits_and_would_not_without_checkpointing() -> None:
    assert planner().problems() == []
    [problem] = planner("learner.policy.gradient_checkpointing=false").problems()
    assert problem.startswith("learner: 246.8 GiB on a GPU of 79.1 GiB, the largest parts are activations 206.1")
    assert "gradient_checkpointing=true" in problem


def test_states_are_those_of_zero_3_in_mixed_precision() -> None:
    states = learner()
    trained = 7_615_616_512 / 4 / GIB  # the language model's, on each of four ranks
    assert states["weights"] == pytest.approx(2 * trained)
    assert states["optimizer states"] == pytest.approx(12 * trained)
    assert states["gradients"] == pytest.approx(4 * trained)
    offloaded = learner("learner.zero.offload_optimizer=cpu")
    assert not {"optimizer states", "gradients"} & set(offloaded)
    plain = learner("learner.zero.precision=float32")
    assert plain["weights"] + plain["optimizer states"] == pytest.approx(12 * trained)


def test_publishing_what_changed_takes_a_copy_of_the_ranks_and_one_of_the_engines() -> None:
    def node(*overrides: str) -> dict[str, float]:
        plan = planner(*overrides)
        return {name: size / GIB for name, size in node_memory(plan.config, plan.policy, 1, 8).items()}

    more = {name: size for name, size in node("pacing.full_every=20").items() if name not in node()}
    weights = pytest.approx(2 * 7_615_616_512 / GIB)
    assert more == {"weights sent last": weights, "mirror of the weights": weights}


def test_an_adapter_has_small_states_and_the_whole_weights() -> None:
    adapter = learner("learner.policy.lora.rank=8")
    assert adapter["optimizer states"] < 0.1
    assert adapter["weights"] == pytest.approx(learner()["weights"], rel=0.01)


@pytest.mark.parametrize(
    ("overrides", "gpu", "expected"),
    [
        (["sampling.max_model_len=2000000"], "h100-80", "raise cluster.tensor_parallel"),
        (["cluster.object_store_gib=40"], "h100-80", "cluster.object_store_gib = 40: holds object store: frames 24.0"),
        (["cluster.frames_gib=0.05"], "h100-80", "cluster.frames_gib = 0.05: must be at least 0.07"),
        ([], "l40s", "learner: 57.1 GiB on a GPU of 44.4 GiB"),
    ],
)
def test_what_does_not_fit_is_named(overrides: list[str], gpu: str, expected: str) -> None:
    assert any(expected in problem for problem in planner(*overrides, gpu=gpu).problems())


def test_a_model_is_a_folder_or_a_shipped_shape() -> None:
    with pytest.raises(BadInput, match=f"no shape of that name is shipped.*{shipped()[0]}"):
        planner("model.policy=models/unknown")
    embedded = planner("model.policy=assets/policy", "model.referee=assets/referee")
    assert embedded.policy.parameters < 10**7


def output(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert cli.main(["plan", str(GPU_CONFIG), *argv]) == 0
    return capsys.readouterr().out


def test_the_command_prints_json_and_exits_0_where_nothing_fits(capsys: pytest.CaptureFixture[str]) -> None:
    plan: dict[str, Any] = json.loads(output(capsys, "--gpus", "8", "--gpu", "h100-80", "--json"))
    assert set(KEYS) <= set(plan)
    assert plan["fits"]
    assert plan["gpu_hours"] == pytest.approx(8 * plan["hours"])
    assert plan["step_s"] >= max(plan["stages"].values())
    assert plan["async_gain"] > 1
    assert all(sum(tried["split"].values()) <= 8 for tried in plan["best_splits"])
    few = json.loads(output(capsys, "--gpus", "4", "--json"))
    assert not few["fits"]
    assert few["problems"][0].startswith("8 GPUs are needed, 4 are given")


def test_the_table_names_components_and_divisions(capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "--gpus", "8")
    for part in ("it fits", "KV cache", "2 weight versions", "GPU-hours", "divisions of 8 GPUs", "asynchrony pays"):
        assert part in text
