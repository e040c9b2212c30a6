"""The runs of a sweep: their order, names and settings, and what is refused."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.errors import BadInput
from orchestration.config import load_config
from orchestration.sweeps.expansion import SweepRun, expand, random_settings, short_names
from orchestration.sweeps.settings import RandomConfig, SweepConfig

LR, WEIGHT = "learner.schedule.lr", "reward.terms.ser.weight"


def sweep(**content: Any) -> SweepConfig:
    return load_config(SweepConfig, ("sweep.yaml", {"config": "c.yaml", "sweep_dir": "runs/s", **content}))


def from_text(text: str, tmp_path: Path) -> SweepConfig:
    (tmp_path / "sweep.yaml").write_text(f"config: c.yaml\nsweep_dir: runs/s\n{text}")
    return load_config(SweepConfig, tmp_path / "sweep.yaml")


def names(config: SweepConfig, *extra: str) -> list[str]:
    return [run.name for run in expand(config, extra)]


def test_axes_are_nested_loops_in_a_fixed_order() -> None:
    runs = expand(
        sweep(
            seeds=[0, 1],
            random={"samples": 2, "draw": {"pacing.staleness": {"choice": ["1", "2"]}}},
            zip={"steps": ["3", "6"], "eval.samples": ["2", "4"]},
            grid={LR: ["1e-4"], "algorithm": ["dapo", "gspo"]},
            variants=[{"name": "a", "set": {"reward": "ser"}}, {"set": {"reward": "rler"}}],
            fixed={"wandb": "disabled"},
        )
    )
    assert len(runs) == 2 * 2 * 2 * 2 * 2
    assert [run.name for run in runs[:5]] == [
        "a_lr-1e-4_algorithm-dapo_steps-3_samples-2_random-0_seed-0",
        "a_lr-1e-4_algorithm-dapo_steps-3_samples-2_random-0_seed-1",
        "a_lr-1e-4_algorithm-dapo_steps-3_samples-2_random-1_seed-0",
        "a_lr-1e-4_algorithm-dapo_steps-3_samples-2_random-1_seed-1",
        "a_lr-1e-4_algorithm-dapo_steps-6_samples-4_random-0_seed-0",
    ]
    assert runs[-1].name == "reward-rler_lr-1e-4_algorithm-gspo_steps-6_samples-4_random-1_seed-1"
    assert runs[0].arm == "a_lr-1e-4_algorithm-dapo_steps-3_samples-2_random-0"
    assert (runs[0].seed, runs[1].seed) == (0, 1)
    staleness = [run.overrides[-2] for run in runs[:4]]
    assert {*staleness} == {"pacing.staleness=1", "pacing.staleness=2"}
    assert {*runs[0].overrides} == {
        *("wandb=disabled", "reward=ser", f"{LR}=1e-4", "algorithm=dapo", "steps=3", "eval.samples=2"),
        *(staleness[0], "seed=0"),
    }


def test_seeds_alone_are_one_arm() -> None:
    assert expand(sweep(seeds=[3, 1])) == [
        SweepRun("seed-3", "base", 3, ("seed=3",)),
        SweepRun("seed-1", "base", 1, ("seed=1",)),
    ]


def test_without_seeds_each_run_is_an_arm() -> None:
    assert expand(sweep(grid={"seed": ["5"]})) == [SweepRun("seed-5", "seed-5", None, ("seed=5",))]


def test_values_are_those_of_the_command_line(tmp_path: Path) -> None:
    config = from_text(
        "fixed: {shuffle_rewards: yes, run: 0123}\ngrid:\n  learner.schedule.lr: [1e-4, 3.0E-4, null, 20261126_2118]\n",
        tmp_path,
    )
    assert [run.overrides[-1] for run in expand(config)] == [
        *(f"{LR}=1e-4", f"{LR}=3.0E-4", f"{LR}=null", f"{LR}=20261126_2118")
    ]
    assert expand(config)[0].overrides[:2] == ("shuffle_rewards=yes", "run=0123")


def test_settings_of_a_section_come_before_those_in_it() -> None:
    """A recipe replaces everything set in its section before it."""
    (run,) = expand(sweep(fixed={WEIGHT: "3"}, grid={"reward": ["ser"]}))
    assert run.overrides == ("reward=ser", f"{WEIGHT}=3")
    (run,) = expand(sweep(fixed={"reward": "ser"}, grid={WEIGHT: ["3"]}))
    assert run.overrides == ("reward=ser", f"{WEIGHT}=3")


def test_the_command_line_wins_over_fixed() -> None:
    (run,) = expand(sweep(fixed={"steps": "3", "wandb": "disabled"}, grid={LR: ["1"]}), ["steps=9", "eval.samples=1=2"])
    assert run.overrides == ("steps=9", "wandb=disabled", "eval.samples=1=2", f"{LR}=1")


def test_short_names_are_the_shortest_ends_that_differ() -> None:
    keys = ["learner.schedule.lr", "a.weight", "b.weight", "weight", "x.a.weight", "seed"]
    assert short_names(keys) == {
        "learner.schedule.lr": "lr",
        "a.weight": "a.weight",
        "b.weight": "b.weight",
        "weight": "weight",
        "x.a.weight": "x.a.weight",
        "seed": "seed",
    }


def test_names_need_no_quotes_and_tell_runs_apart() -> None:
    config = sweep(grid={"data.train": ["/data/a b.json", "/data/C.json"], "learner.schedule.warmup": ["-1", "[1, 2]"]})
    assert names(config) == [
        *("train-data-a-b.json_warmup--1", "train-data-a-b.json_warmup-1-2"),
        *("train-data-C.json_warmup--1", "train-data-C.json_warmup-1-2"),
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9._+-]+", name) for name in names(config))


def test_a_sweep_and_a_name_may_be_as_large_as_their_limits() -> None:
    values = [str(n) for n in range(100)]
    pairs = sweep(zip={"a": values, "b": values}, random={"samples": 100, "draw": {"x": {"uniform": [0, 1]}}})
    assert len(expand(pairs)) == 10_000
    more = sweep(zip={"a": values}, random={"samples": 101, "draw": {"x": {"uniform": [0, 1]}}})
    with pytest.raises(BadInput, match="the sweep has 10,100 runs; at most 10,000 are possible"):
        expand(more)
    assert names(sweep(grid={"a": ["x" * 118]})) == [f"a-{'x' * 118}"]
    with pytest.raises(BadInput, match="has 121 characters, at most 120"):
        expand(sweep(grid={"a": ["x" * 119]}))


def test_a_name_does_not_depend_on_the_other_values() -> None:
    few, many = (sweep(grid={LR: values}, seeds=[0]) for values in (["3"], ["1", "3", "2"]))
    assert set(names(few)) < set(names(many))


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ({}, ["one run only"]),
        ({"grid": {LR: ["1", "1"]}}, ["runs lr-1 and lr-1 have the same settings"]),
        ({"seeds": [0, 0]}, ["seed-0 and seed-0 have the same settings: seed=0"]),
        ({"variants": [{"set": {LR: "1"}}, {"name": "b", "set": {LR: "1"}}]}, ["lr-1 and b have the same settings"]),
        ({"grid": {"data.train": ["a b", "a/b"]}}, ["two runs have this name, data.train=a b and data.train=a/b"]),
        ({"grid": {"data.train": ["x" * 200]}}, ["its name has 206 characters, at most 120", "variants"]),
        ({"grid": {"a": [str(n) for n in range(101)], "b": [str(n) for n in range(100)]}}, ["10,100 runs; at most"]),
    ],
)
def test_runs_that_cannot_be_told_apart_are_refused(content: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(BadInput) as error:
        expand(sweep(**content))
    assert all(part in str(error.value) for part in parts), str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("extra", "part"),
    [
        ("steps", "override 'steps': write it as key=value"),
        (f"{LR}=1=2", "override learner.schedule.lr=…: grid of the sweep sets this key"),
        ("seed=1", "override seed=…: seeds of the sweep sets this key"),
        ("run_dir=x", "override run_dir=…: run_dir cannot be set"),
        ("resume=no", "every run has resume=auto"),
    ],
)
def test_what_every_run_gets_cannot_be_what_is_swept(extra: str, part: str) -> None:
    with pytest.raises(BadInput, match=re.escape(part)):
        expand(sweep(grid={LR: ["1"]}, seeds=[0]), [extra])


def drawn(samples: int, seed: int = 0, **draw: Any) -> list[dict[str, str]]:
    return random_settings(load_config(RandomConfig, ("random", {"samples": samples, "seed": seed, "draw": draw})))


def test_random_samples_depend_on_the_seed_and_not_on_their_number() -> None:
    draw: dict[str, Any] = {"a": {"uniform": [0, 1]}, "b": {"choice": ["x", "y", None]}}
    assert drawn(3, **draw) == drawn(20, **draw)[:3]
    assert drawn(3, **draw) != drawn(3, seed=1, **draw)
    assert {values["b"] for values in drawn(40, **draw)} == {"x", "y", "null"}
    assert {values["b"] for values in drawn(3, b=draw["b"])} == {"x", "y", "null"}, "samples are different"
    with pytest.raises(BadInput, match=r"random\.samples = 4: only 3 different ones were drawn"):
        drawn(4, b=draw["b"])


def test_log_uniform_is_even_in_the_logarithm() -> None:
    logs = [math.log10(float(values["lr"])) for values in drawn(400, lr={"log_uniform": [1e-6, 1e-2]})]
    below = sum(value < -4 for value in logs) / len(logs)
    assert 0.42 < below < 0.58
    evenly = [float(values["x"]) for values in drawn(400, x={"uniform": [0, 1]})]
    assert 0.42 < sum(value < 0.5 for value in evenly) / 400 < 0.58


@given(
    st.floats(1e-9, 1e9, allow_nan=False, allow_infinity=False),
    st.floats(1.000001, 1e6),
    st.sampled_from(["uniform", "log_uniform"]),
    st.integers(0, 9),
)
def test_random_values_stay_within_their_bounds(low: float, factor: float, kind: str, seed: int) -> None:
    (values,) = drawn(1, seed, x={kind: [low, low * factor]})
    assert low <= float(values["x"]) <= low * factor
