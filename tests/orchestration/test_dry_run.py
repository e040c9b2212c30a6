"""What a dry run replaces, and what it still refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from evidence.errors import BadInput
from orchestration import train
from orchestration.config import load_config, to_yaml
from orchestration.dry_run import reduce, rehearsal
from orchestration.resuming import differences
from orchestration.settings import TrainConfig

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "configs/experiment/gpu"
WITH_GPUS = {
    "model.policy",
    "model.referee[0].model",
    "eval.samples",
    "steps",
    "run_dir",
    "wandb",
    "dry_run",
}


def changed(config: TrainConfig, reduced: TrainConfig) -> dict[str, object]:
    return {key: value for key, _, value in differences(config, reduced)}


def test_with_its_gpus_a_dry_run_keeps_the_division_and_replaces_only_the_models() -> None:
    config = load_config(TrainConfig, RECIPES / "qwen3_vl_32b_32.yaml", ["dry_run=true"])
    reduced = reduce(config, Path("/tmp/dry"), on_gpus=True)
    assert set(changed(config, reduced)) == WITH_GPUS
    assert reduced.gpus == config.gpus
    assert (reduced.model.policy, reduced.run_dir) == ("/tmp/dry/policy", "/tmp/dry/run")
    assert not reduced.dry_run


def test_without_gpus_a_dry_run_has_one_engine_one_referee_and_two_ranks(tmp_path: Path) -> None:
    overrides = ["dry_run=true", "sampling.top_k=50", "cluster.model_runner=v2", "resume=auto"]
    config = load_config(TrainConfig, RECIPES / "qwen2_5_vl_7b_32.yaml", overrides)
    reduced = reduce(config, tmp_path, on_gpus=False)
    assert (reduced.gpus, reduced.engines, reduced.learner.ranks, reduced.pacing.groups_per_step) == (0, 2, 2, 2)
    for kept in ("contract", "template", "verification", "reward", "algorithm", "data"):
        assert getattr(reduced, kept) == getattr(config, kept)
    assert reduced.sampling.max_tokens == config.sampling.max_tokens
    assert reduced.learner.policy == config.learner.policy
    saved = tmp_path / "config.yaml"
    saved.write_text(to_yaml(reduced))
    assert load_config(TrainConfig, saved) == reduced, "the config of a dry run is a valid one"


def test_every_set_that_is_evaluated_is_evaluated_once_on_one_sample(tmp_path: Path) -> None:
    sets = ["eval.every=50", "eval.benchmarks=[{name: mvbench, data: d, limit: 100}]"]
    config = load_config(TrainConfig, RECIPES / "qwen2_5_vl_7b_8.yaml", sets)
    for on_gpus in (True, False):
        reduced = reduce(config, tmp_path, on_gpus).eval
        assert (reduced.samples, reduced.every, reduced.benchmarks[0].limit) == (1, 1, 1)


def test_an_ensemble_becomes_its_first_referee_and_an_endpoint_stays(tmp_path: Path) -> None:
    endpoint = "{model: judge, url: http://127.0.0.1:1/v1}"
    for referees, expected in (
        (f"[{endpoint}, r1]", ("judge", "http://127.0.0.1:1/v1")),
        (f"[{{model: r1, replicas: 4}}, r2, {endpoint}]", (str(tmp_path / "referee-0"), "")),
    ):
        config = load_config(TrainConfig, RECIPES / "qwen2_5_vl_7b_8.yaml", [f"model.referee={referees}"])
        (source,) = reduce(config, tmp_path, on_gpus=False).model.referee
        assert (source.model, source.url, source.replicas) == (*expected, 1)


def test_one_rank_stays_one_rank(tmp_path: Path) -> None:
    config = load_config(TrainConfig, RECIPES / "qwen2_5_vl_3b_1.yaml")
    reduced = reduce(config, tmp_path, on_gpus=False)
    assert (reduced.learner.ranks, reduced.cluster.colocated, reduced.gpus) == (1, False, 0)
    assert reduced.learner.policy.lora == config.learner.policy.lora


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["learner.policy.gradient_checkpointing=false"], "learner: .* GiB on a GPU of"),
        (["cluster.object_store_gib=30"], "cluster.object_store_gib = 30: holds"),
        (["model.policy=models/unknown"], "model.policy = models/unknown: no config.json there"),
        (["model.referee={model: models/Qwen3-VL-8B-Instruct, calibration: none.json}"], "none.json: cannot be read"),
        (["data.train=none.json"], "none.json"),
        (["contract.multiple=15"], "contract.multiple = 15: the policy takes tiles of 28 pixels"),
    ],
)
def test_a_bad_config_is_refused_and_nothing_is_left(
    tmp_path: Path, world: Path, overrides: list[str], message: str
) -> None:
    paths = f"run_dir={tmp_path}/run", f"data.train={world}/train.json", f"data.heldout={world}/test.json"
    config = load_config(TrainConfig, RECIPES / "qwen2_5_vl_7b_8.yaml", ["dry_run=true", *paths, *overrides])
    with pytest.raises(BadInput, match=message):
        train.main(config)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").touch()
    config = load_config(TrainConfig, RECIPES / "qwen2_5_vl_7b_8.yaml", [f"run_dir={tmp_path}/run", "dry_run=true"])
    with pytest.raises(BadInput, match="already holds a run"), rehearsal(config):
        pass


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from rollout.dataset.shapes import make_shapes

    folder = tmp_path_factory.mktemp("world") / "shapes"
    make_shapes(folder, train=2, val=0, test=1, questions=1, workers=1)
    return folder
