"""Composing a config, and every way in which a user can get one wrong."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import MISSING

from evidence.errors import BadInput
from orchestration.commands.run_files import judging_config
from orchestration.commands.sft import SftConfig
from orchestration.config import load_config, to_yaml
from orchestration.settings import TrainConfig
from orchestration.supervision.standalone_referee import StandaloneConfig

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Engine:
    count: int = 1
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.count < 1:
            raise BadInput(f"count = {self.count}: must be 1 or more")


@dataclass(frozen=True)
class Stage:
    data: str
    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise BadInput(f"steps = {self.steps}: must be 1 or more")


@dataclass(frozen=True)
class Run:
    name: str = MISSING
    engine: Engine = field(default_factory=Engine)
    spare: Engine | None = None
    mode: Literal["fast", "exact"] = "fast"
    weights: dict[str, float] = field(default_factory=dict)
    bounds: tuple[float, ...] = (0.0, 1.0)
    limit: float | None = None
    stages: list[Stage] = field(default_factory=list)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_overrides_win_over_the_file_its_includes_and_defaults_in_this_order(tmp_path):
    write(tmp_path, "parts/a.yaml", "name: a\nengine: {count: 2, share: 0.2}\nlimit: 1\n")
    write(tmp_path, "parts/b.yaml", "engine: {count: 3}\nmode: exact\nstages: [{data: x, steps: 5}]\n")
    path = write(tmp_path, "run.yaml", "include: [parts/a.yaml, parts/b.yaml]\nname: run\nweights: {acc: 1}\n")
    config = load_config(Run, path, ["engine.share=0.7", "weights.fmt=2e-1", "limit=null"])
    assert config == Run(
        "run", Engine(3, 0.7), None, "exact", {"acc": 1.0, "fmt": 0.2}, (0.0, 1.0), None, [Stage("x", 5)]
    )


def test_includes_are_relative_to_the_file_that_names_them(tmp_path, monkeypatch):
    write(tmp_path, "deep/base.yaml", "name: base\n")
    write(tmp_path, "deep/mid.yaml", "include: [base.yaml]\n")
    path = write(tmp_path, "run.yaml", "include: [deep/mid.yaml]\n")
    monkeypatch.chdir("/")
    assert load_config(Run, path).name == "base"


def test_two_files_may_include_the_same_file(tmp_path):
    write(tmp_path, "base.yaml", "name: base\nengine: {count: 9}\n")
    write(tmp_path, "a.yaml", "include: [base.yaml]\nengine: {count: 2}\n")
    write(tmp_path, "b.yaml", "include: [base.yaml]\n")
    assert load_config(Run, write(tmp_path, "run.yaml", "include: [a.yaml, b.yaml]\n")).engine.count == 9


def test_resolved_yaml_loads_to_an_equal_config(tmp_path):
    config = load_config(Run, None, ["name='a b: c'", "spare.count=4", "weights={ser: 1.5}", "limit=${engine.share}"])
    assert config.limit == 0.5
    assert config.spare == Engine(4)
    assert load_config(Run, write(tmp_path, "resolved.yaml", to_yaml(config))) == config


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("engine.cuont=2", ["engine.cuont", "engine.count"]),
        ("count=2", ["unknown key count", ".count"]),
        ("engine.count=two", ["engine.count", "'two'", "a whole number"]),
        ("engine.count=1.5", ["engine.count", "1.5", "a whole number"]),
        ("engine.count=", ["engine.count", "None", "a whole number"]),
        ("engine=2", ["engine", "2", "section", "count, share"]),
        ("engine=null", ["engine", "None", "section"]),
        ("mode=quick", ["mode", "'quick'", "'fast', 'exact'"]),
        ("weights.acc=x", ["weights.acc", "'x'", "a number"]),
        ("bounds=[1, a]", ["bounds.1", "'a'", "a number"]),
        ("bounds=1", ["bounds", "1", "a list, each a number"]),
        ("stages=[{data: a, stpes: 1}]", ["stages.0.stpes", "stages.0.steps"]),
        ("stages=[{data: a, steps: 1}, {data: b, steps: x}]", ["stages.1.steps", "'x'", "a whole number"]),
        ("stages.0=1", ["stages", "{'0': 1}", "a list"]),
        ("stages=[a]", ["stages.0", "'a'", "a section with the keys data, steps"]),
        ("limit=x", ["limit", "'x'", "a number or null"]),
        ("engine.count=0", [": engine.count = 0", "1 or more"]),
        ("spare={count: 0}", [": spare.count = 0", "1 or more"]),
        ("stages=[{data: a, steps: 1}, {data: b, steps: 0}]", [": stages.1.steps = 0", "1 or more"]),
        ("bounds=[1", ["not valid YAML"]),
        ("mode=[1", ["mode = '[1'", "'fast', 'exact'"]),
        ("name=null", ["name = None: must be text", "'null' is the word, '' is no text"]),
        ("name=${", ["name = '${'", "\\${…} is the text itself"]),
        ("engine.count=???", ["engine.count = ???", "is no value; give one, or leave the key out"]),
        ("name=???", ["name = ???", "is no value"]),
        ("stages=[{data: a, steps: '???'}]", ["stages.0.steps = ???", "is no value"]),
        ("weights={acc: '???'}", ["weights.acc = ???", "is no value"]),
        ("engine.count=1:30", ["engine.count = '1:30'", "a whole number"]),
        (f"engine.count={10**26}", [f"engine.count = {10**26}", "at most 9,007,199,254,740,992"]),
    ],
)
def test_a_wrong_override_is_refused_in_one_line_that_names_it(tmp_path, override, parts):
    path = write(tmp_path, "run.yaml", "name: run\n")
    with pytest.raises(BadInput) as refused:
        load_config(Run, path, ["engine.share=0.1", override])
    message = str(refused.value)
    assert "\n" not in message
    assert all(part in message for part in [f"override {override.partition('=')[0]}=…", *parts]), message


@pytest.mark.parametrize(
    ("schema", "override", "nearest"),
    [
        (TrainConfig, "lr=1", "learner.schedule.lr"),
        (TrainConfig, "token_budget=1", "learner.packing.token_budget"),
        (TrainConfig, "packing.budget=1", "learner.packing.token_budget"),
        (TrainConfig, "schedule.lr=1", "learner.schedule.lr"),
        (TrainConfig, "learner.groups_per_step=1", "pacing.groups_per_step"),
        (TrainConfig, "warmup=1", "learner.schedule.warmup"),
        (TrainConfig, "mode=none", "learner.packing.mode"),
        (TrainConfig, "algorithm.lr=1", "learner.schedule.lr"),
        (SftConfig, "lr=1", "schedule.lr"),
        (SftConfig, "learner.schedule.lr=1", "schedule.lr"),
        (SftConfig, "learner={packing: {token_budget: 1}}", "packing.token_budget"),
        (SftConfig, "packing.budget=1", "packing.token_budget"),
        (SftConfig, "warmup=1", "schedule.warmup"),
        (SftConfig, "steps=1", "stages.0.steps"),
        (SftConfig, "stages=[{data: a, step: 1}]", "stages.0.steps"),
    ],
)
def test_the_right_key_is_suggested_for_a_misspelt_or_misplaced_one(schema, override, nearest):
    with pytest.raises(BadInput, match=rf"unknown key .*; the nearest known one is {re.escape(nearest)}$"):
        load_config(schema, None, [override])


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("reward.sigma=2", "reward.terms.ser.options.sigma"),
        ("reward.sigm=2", "reward.terms.ser.options.sigma"),
        ("reward.options.sigma=2", "reward.terms.ser.options.sigma"),
        ("reward.terms.ser.sigma=2", "reward.terms.ser.options.sigma"),
        ("reward.free_form=exact", "reward.terms.acc.options.free_form"),
        ("eval.sigma=2", "eval.ser.sigma"),
        ("learner.grups_per_step=2", "pacing.groups_per_step"),
    ],
)
def test_keys_of_the_same_section_are_suggested_first_options_of_reward_terms_included(override, nearest):
    with pytest.raises(BadInput, match=rf"unknown key .*; the nearest known one is {re.escape(nearest)}$"):
        load_config(TrainConfig, ROOT / "configs/experiment/quickstart.yaml", [override])


@pytest.mark.parametrize("schema", [TrainConfig, StandaloneConfig])
def test_a_key_that_was_replaced_names_what_replaced_it(schema, tmp_path):
    message = r"run\.yaml: unknown key cluster\.timeout_s; it was replaced by limits\.\*$"
    with pytest.raises(BadInput, match=message):
        load_config(schema, write(tmp_path, "run.yaml", "cluster: {timeout_s: 60}\n"))
    with pytest.raises(BadInput, match=message):
        judging_config(write(tmp_path, "run.yaml", "cluster: {timeout_s: 60}\npacing: {staleness: 1}\n"), [])


def test_option_names_follow_the_recipe_in_force(tmp_path, monkeypatch):
    write(tmp_path, "loud_terms.py", "def shout(view, *, loudness=1):\n    return [0.0] * len(view.texts)\n")
    monkeypatch.chdir(tmp_path)
    config = ROOT / "configs/experiment/quickstart.yaml"
    with pytest.raises(BadInput, match=r"nearest known one is reward\.terms\.loud\.options\.loudness$"):
        load_config(TrainConfig, config, ["reward.terms.loud.use='loud_terms:shout'", "reward.loudnes=2"])
    with pytest.raises(BadInput, match=r"nearest known one is eval\.ser\.sigma$"):
        load_config(TrainConfig, config, ["reward=accuracy_only", "reward.sigma=2"])
    with pytest.raises(BadInput, match=r"unknown key reward\.sigma"):
        load_config(TrainConfig, config, ["reward.terms.ser.use=nowhere", "reward.sigma=2"])


def test_an_override_without_a_value_is_refused():
    with pytest.raises(BadInput, match=r"override 'engine\.count': write it as key=value"):
        load_config(Run, None, ["engine.count"])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name: run\nengine:\n  cuont: 2\n", ["engine.cuont", "engine.count"]),
        ("name: run\nlimit: [1]\n", ["limit", "[1]", "a number or null"]),
        ("engine: {count: 2}\n", ["name", "no value"]),
        ("name: run\nlimit: ???\n", ["limit = ???", "is no value"]),
        ("name: {foo}\n", ["name = {'foo': None}", "must be text, in quotes"]),
        ("name:\n", ["name = None", "must be text", "'' is no text"]),
        ("name: run\nstages: [{data: a}]\n", ["stages[0].steps", "no value"]),
        ("name: ${nane}\n", ["name", "nane"]),
        ("name: [\n", ["not valid YAML", "line 2"]),
        ("name: a\nname: b\n", ["not valid YAML", "duplicate", "name"]),
        ("- name\n", ["mapping"]),
        ("include: base.yaml\n", ["include", "list of file names"]),
        ("name: run\nengine: {count: -1}\n", ["engine.count = -1", "1 or more"]),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_that_names_it(tmp_path, text, parts):
    path = write(tmp_path, "run.yaml", text)
    with pytest.raises(BadInput) as refused:
        load_config(Run, path)
    message = str(refused.value)
    assert "\n" not in message
    assert all(part in message for part in [str(path), *parts]), message


def test_a_fault_in_an_included_file_names_that_file(tmp_path):
    base = write(tmp_path, "base.yaml", "engine: {count: 0}\n")
    with pytest.raises(BadInput, match=str(base)):
        load_config(Run, write(tmp_path, "run.yaml", "include: [base.yaml]\nname: run\n"))


def test_a_missing_file_is_named_with_similar_files_in_its_folder(tmp_path):
    path = write(tmp_path, "quickstart.yaml", "name: run\n")
    with pytest.raises(BadInput, match=rf"quickstrat\.yaml: no such file; nearby: {path}"):
        load_config(Run, tmp_path / "quickstrat.yaml")
    with pytest.raises(BadInput, match=r"the folder .*/nowhere does not exist either"):
        load_config(Run, tmp_path / "nowhere" / "run.yaml")
    with pytest.raises(BadInput, match=r"bse\.yaml: no such file; nearby: .*quickstart"):
        load_config(Run, write(tmp_path, "run.yaml", "include: [bse.yaml]\n"))


def test_circular_includes_are_refused(tmp_path):
    write(tmp_path, "a.yaml", "include: [b.yaml]\n")
    write(tmp_path, "b.yaml", "include: [c.yaml]\n")
    write(tmp_path, "c.yaml", "include: [b.yaml]\n")
    with pytest.raises(BadInput, match=r"circular include: b\.yaml -> c\.yaml -> b\.yaml"):
        load_config(Run, tmp_path / "a.yaml")


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(-2, 2)
    | st.sampled_from(["a", "exact", "${name}", "???"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["count", "share", "data", "steps", "acc", "0"]), inner, max_size=2)
    ),
    max_leaves=4,
)
keys = st.sampled_from([*Run.__dataclass_fields__, "engine.count", "stages.0", "weights.acc", "bounds[0]", "nane"])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(keys, values), max_size=3))
def test_any_override_gives_a_config_or_a_one_line_error(pairs):
    overrides = [f"{key}={yaml.safe_dump(value, default_flow_style=True).split(chr(10))[0]}" for key, value in pairs]
    try:
        config = load_config(Run, None, ["name=run", *overrides])
    except BadInput as error:
        lines, config = str(error).count("\n") + 1, Run()
        assert lines == 1
    assert isinstance(config.engine, Engine)
    assert all(isinstance(stage, Stage) for stage in config.stages)


@pytest.mark.parametrize(
    ("override", "files"),
    [
        ("data.train=b.json", [("b.json", 1.0)]),
        ("data.train=[b.json, {path: c.json, weight: 2}]", [("b.json", 1.0), ("c.json", 2.0)]),
        ("data.train={path: c.json, weight: 2}", [("c.json", 2.0)]),
        ("data.train=0123", [("0123", 1.0)]),
        ("data.train=a: b", [("a: b", 1.0)]),
        ("data.train=[0123, {path: yes, weight: 02}]", [("0123", 1.0), ("yes", 2.0)]),
    ],
)
def test_a_dataset_may_be_given_by_its_path_alone(tmp_path, override, files):
    path = write(tmp_path, "run.yaml", "data: {train: [x.json, y.json], heldout: h.json}\n")
    config = load_config(TrainConfig, path, [*NEEDED[2:], override])
    assert [(file.path, file.weight) for file in config.data.train] == files
    assert config.data.heldout.path == "h.json"
    assert load_config(TrainConfig, write(tmp_path, "resolved.yaml", to_yaml(config))) == config


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("data.train=", ["data.train = None", "a list, each text (the path) or a section with the keys path"]),
        ("data.train=[]", ["data.train = []", "at least one dataset file"]),
        ("data.train=[null]", ["data.train.0 = None", "text (the path) or a section"]),
        ("data.train={pth: a}", ["unknown key data.train.0.pth", "data.train.0.path"]),
        ("data.train={weight: 2}", ["data.train[0].path", "no value"]),
        ("data.train=[{path: a, weight: 0}]", ["data.train.0.weight = 0", "above 0"]),
        ("data.heldout.format=openo3", ["data.heldout.format = openo3", "one of ser, open-o3"]),
        ("data.heldout=[a, b]", ["data.heldout", "text (the path) or a section"]),
    ],
)
def test_a_wrong_dataset_section_is_refused(override, parts):
    with pytest.raises(BadInput) as refused:
        load_config(TrainConfig, None, [*NEEDED, override])
    assert all(part in str(refused.value) for part in parts), refused.value


NEEDED = ["data.train=a", "data.heldout=b", "model.policy=p", "model.referee=r", "steps=3", "run_dir=runs/x"]
NEEDED += ["reward=ser_no_temporal"]
