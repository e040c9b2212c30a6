"""The config of answers: elections that cannot be held are refused, and a run's config is understood."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.election.sparse_to_dense import SparseToDense
from evidence.errors import BadInput
from orchestration.answering.answerer import gpus
from orchestration.answering.settings import AnswerConfig, load, method_of
from orchestration.config import to_yaml

ROOT = Path(__file__).parents[3]
MODEL = "model=folder"


def test_constants_of_a_method_and_of_drawing_are_keys():
    config = load(None, [MODEL, "election.rler.stop_lead=0.5", "election.temperatures=[0.3]", "judge=other"])
    method = method_of(config, "rler")
    assert method.stop_lead == 0.5
    assert config.election.temperatures_of(method) == [0.3]
    assert config.judge.model == "other"
    assert load(None, [MODEL]).election.temperatures_of(method) == (0.2, 0.7, 0.9)


REFUSED = {
    "unknown": ("best", [], "no election 'best'; there are rler, majority"),
    "open_o3": ("open_o3", [], "open_o3 elects by the relevance of what each claim shows, which a referee judges"),
    "temperatures": (
        "self_certainty",
        ["election.temperatures=[0.2,0.9]"],
        "election.temperatures = [0.2, 0.9]: self_certainty compares log-probabilities",
    ),
    "frames": ("sparse_to_dense", [], "most_frames = 128: must be at most contract.frames (16)"),
    "more frames": ("rler", ["election.perturb.frames=[8,32]"], "32 must be at most contract.frames (16)"),
    "native": ("rler", ["election.perturb.shuffle=true", "template.native_video=true"], "perturb.shuffle: frames of"),
}


@pytest.mark.parametrize(("name", "overrides", "part"), REFUSED.values(), ids=REFUSED)
def test_an_election_that_cannot_be_held_is_refused(name, overrides, part):
    config = load(None, [MODEL, *overrides])
    with pytest.raises(BadInput) as error:
        method_of(config, name)
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_the_same_elections_with_what_they_need():
    sparse = [f"election.sparse_to_dense.{key}" for key in ("first_frames=4", "most_frames=16")]
    config = load(None, [MODEL, "judge=referee", "election.perturb.frames=[8]", *sparse])
    names = ["open_o3", "self_certainty", "rler", "majority"]
    assert [method_of(config, name).NAME for name in names] == names
    assert isinstance(method_of(config, "sparse_to_dense"), SparseToDense)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("temperature=3", "temperature = 3.0: must be 0, which is greedy, or 0.01 to 2"),
        ("election.temperatures=[-1]", "election.temperatures = [-1.0]: must be from 0 to 2 each"),
        ("election.at_once=0", "election.at_once = 0: must be 1 or more"),
        ("file_gib=0", "file_gib = 0.0: must be above 0"),
        ("election.rler.stop=1", "unknown key election.rler.stop; the nearest known one is election.rler.stop_lead"),
    ],
)
def test_bad_settings(override, part):
    with pytest.raises(BadInput) as error:
        load(None, [MODEL, override])
    assert part in str(error.value)


def test_the_config_of_a_run_gives_prompts_frames_and_verdicts_but_not_the_model(tmp_path):
    from orchestration.config import load_config
    from orchestration.settings import TrainConfig

    run = load_config(TrainConfig, ROOT / "configs/experiment/quickstart.yaml", ["run_dir=runs/x"])
    (tmp_path / "config.yaml").write_text(to_yaml(run))
    config = load(tmp_path / "config.yaml", [MODEL])
    assert config.model == "folder"
    assert (config.contract, config.template, config.verification) == (run.contract, run.template, run.verification)
    assert config.engine.max_model_len == run.sampling.max_model_len
    assert config.judge is None


def test_gpus_are_counted_for_policy_and_referee():
    overrides = [MODEL, "cluster.gpus_per_engine=1", "cluster.rollout_engines=2"]
    assert gpus(load(None, overrides)) == 2
    assert gpus(load(None, [*overrides, "judge={model: r, replicas: 3}"])) == 5
    assert gpus(load(None, [*overrides, "judge={model: r, url: 'http://127.0.0.1:1/v1'}"])) == 2
    assert isinstance(load(None, overrides), AnswerConfig)
