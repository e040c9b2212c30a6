"""Recipes: sections of a config that a name stands for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from evidence.errors import BadInput
from orchestration.config import load_config, to_yaml
from orchestration.settings import TrainConfig
from referee.reward.graph import RewardGraph

ROOT = Path(__file__).parents[2]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@dataclass(frozen=True)
class Recipe:
    SHORT = "recipe"
    FOLDER = "engines"

    recipe: str = ""
    size: int = 0
    parts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Cooked:
    engine: Recipe = field(default_factory=Recipe)


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    monkeypatch.setattr("orchestration.config.CONFIGS", tmp_path)
    write(tmp_path, "engines/small.yaml", "size: 1\nparts: {a: 1, b: 2}\n")
    write(tmp_path, "engines/large.yaml", "include: [small.yaml]\nsize: 9\n")
    return tmp_path


def test_keys_beside_a_recipe_override_it(recipes):
    path = write(recipes, "run.yaml", "engine: {recipe: large, parts: {b: 5}}\n")
    assert load_config(Cooked, path) == Cooked(Recipe("", 9, {"a": 1, "b": 5}))
    assert load_config(Cooked, path, ["engine.parts.c=7"]).engine.parts == {"a": 1, "b": 5, "c": 7}


def test_a_later_recipe_replaces_everything_set_before(recipes):
    path = write(recipes, "run.yaml", "engine: {recipe: large, parts: {c: 5}}\n")
    assert load_config(Cooked, path, ["engine=small"]) == Cooked(Recipe("", 1, {"a": 1, "b": 2}))
    own = write(recipes, "own.yaml", "size: 4\n")
    assert load_config(Cooked, path, [f"engine={own}", "engine.parts.d=1"]) == Cooked(Recipe("", 4, {"d": 1}))


def test_a_resolved_config_does_not_need_the_recipe_file(recipes):
    config = load_config(Cooked, write(recipes, "run.yaml", "engine: large\n"))
    saved = write(recipes, "saved.yaml", to_yaml(config))
    (recipes / "engines" / "large.yaml").unlink()
    assert load_config(Cooked, saved) == config


def test_an_unknown_recipe_is_refused_with_the_known_ones(recipes):
    with pytest.raises(BadInput, match=r"override engine=…: .*the nearest is large, all are: large, small"):
        load_config(Cooked, None, ["engine=larg"])
    write(recipes, "engines/large.yaml", "sise: 9\n")
    with pytest.raises(BadInput, match=r"large\.yaml: unknown key engine\.sise; the nearest known one is engine\.size"):
        load_config(Cooked, None, ["engine=large"])


RECIPES = sorted(path.stem for path in (ROOT / "configs/reward").glob("*.yaml"))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_in_configs_can_be_trained_with(name):
    graph = RewardGraph(
        load_config(TrainConfig, ROOT / "configs/experiment/quickstart.yaml", [f"reward={name}"]).reward
    )
    assert ("verdicts" in graph.needs) == name.startswith("ser")
