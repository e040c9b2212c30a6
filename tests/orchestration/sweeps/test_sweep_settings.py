"""What the config of a sweep refuses, in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from evidence.errors import BadInput
from orchestration.config import CONFIGS
from orchestration.sweeps.expansion import expand
from orchestration.sweeps.settings import load_sweep


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("gird: {steps: [1]}", "unknown key gird; the nearest known one is grid, all are: config, "),
        ("grid: {steps: 3}", "grid.steps = 3: must be a list"),
        ("grid: {steps: []}", "grid.steps = []: must be a list of at least one value"),
        ("grid: {steps: [{a: 1}]}", "must be text"),
        ("zip: {steps: [1, 2], seed: [1]}", "zip = {'steps': 2, 'seed': 1}: must be lists of the same length"),
        ("zip: {steps: []}", "zip = {'steps': 0}: must be lists of the same length, with at least one value"),
        ("variants: [{name: a}]", "set has no value"),
        ("variants: [{set: {}}]", "set = {}: must be at least one key"),
        ("variants: [{name: a b, set: {steps: 3}}]", "name = a b: must be of letters, digits"),
        ("variants: [{name: ../x, set: {steps: 3}}]", "name = ../x: must be of letters"),
        ("seeds: [a]", "seeds.0 = 'a': must be a whole number"),
        ("seeds: [-1]", "seeds = [-1]: must be whole numbers from 0"),
        ("parallel: 0", "parallel = 0: must be 1 or more"),
        ("retries: -1", "retries = -1: must be 0 or more"),
        ("config: ''", "config = : must be the path of a config"),
        ("sweep_dir: ''", "sweep_dir = : must be a folder"),
        ("grid: {steps: [1]}\nfixed: {steps: 3}", "grid: steps is set by fixed, too"),
        ("grid: {steps: [1]}\nvariants: [{set: {steps: 3}}]", "grid: steps is set by variants, too"),
        ("grid: {seed: [1]}\nseeds: [0]", "seeds: seed is set by grid, too"),
        ("zip: {steps: [1]}\nrandom: {samples: 1, draw: {steps: {choice: [3]}}}", "random: steps is set by zip, too"),
        ("fixed: {run_dir: x}", "fixed: run_dir cannot be set: the sweep gives each run its own folder"),
        ("grid: {resume: [auto]}", "grid: resume cannot be set: every run has resume=auto"),
        ("random: {draw: {a: {choice: [1]}}}", "random.samples has no value"),
        ("random: {samples: 0, draw: {a: {choice: [1]}}}", "random.samples = 0: must be 1 or more"),
        ("random: {samples: 1, draw: {}}", "random.draw = {}: must be at least one key"),
        ("random: {samples: 1, draw: {a: {}}}", "give exactly one of them, not 0"),
        ("random: {samples: 1, draw: {a: {choice: [1], uniform: [0, 1]}}}", "give exactly one of them, not 2"),
        ("random: {samples: 1, draw: {a: {choice: []}}}", "choice = []: must be a list of at least one value"),
        ("random: {samples: 1, draw: {a: {uniform: [1, 0]}}}", "uniform = [1.0, 0.0]: must be [lowest, highest]"),
        ("random: {samples: 1, draw: {a: {uniform: [0, .inf]}}}", "both finite"),
        ("random: {samples: 1, draw: {a: {uniform: [0, 1, 2]}}}", "must be [lowest, highest]"),
        ("random: {samples: 1, draw: {a: {log_uniform: [0, 1]}}}", "log_uniform = [0.0, 1.0]: must be above 0"),
        ("random: {samples: 1, draw: {a: {normal: [0, 1]}}}", "unknown key random.draw.a.normal"),
    ],
)
def test_a_sweep_that_is_not_one_is_refused(text: str, part: str, tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    given = {line.partition(":")[0] for line in text.splitlines()}
    base = {"config": "config: c.yaml", "sweep_dir": "sweep_dir: runs/s"}
    path.write_text("\n".join([*(line for key, line in base.items() if key not in given), text]))
    with pytest.raises(BadInput) as error:
        load_sweep(path)
    assert part in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "runs"), [("quickstart_seeds", 3), ("reward_ablation", 9)])
def test_the_example_sweeps_expand(name: str, runs: int) -> None:
    assert len(expand(load_sweep(CONFIGS / f"sweep/{name}.yaml"))) == runs
