"""The recipes for GPUs resolve, use all their GPUs, and fit them by the plan."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from orchestration.config import load_config, to_yaml
from orchestration.planning.gpus import GPUS
from orchestration.planning.plan import Planner
from orchestration.settings import TrainConfig

FOLDER = Path(__file__).parents[3] / "configs/experiment"
RECIPES = sorted((FOLDER / "gpu").glob("*.yaml"))
COMPARED = [path for folder in ("published", "ablation") for path in sorted((FOLDER / folder).glob("*.yaml"))]
MODELS = {
    "qwen2_5_vl_3b": ("Qwen2.5-VL-3B-Instruct", (1,)),
    "qwen2_5_vl_7b": ("Qwen2.5-VL-7B-Instruct", (1, 8, 16, 32)),
    "qwen3_vl_8b": ("Qwen3-VL-8B-Instruct", (1, 8, 16, 32)),
    "qwen2_5_vl_32b": ("Qwen2.5-VL-32B-Instruct", (32,)),
    "qwen3_vl_32b": ("Qwen3-VL-32B-Instruct", (32,)),
}
PROMPTS = 8000  # of every recipe


def test_every_size_has_its_recipes() -> None:
    names = {f"{name}_{gpus}" for name, (_, counts) in MODELS.items() for gpus in counts}
    assert {recipe.stem for recipe in RECIPES} == names


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_recipe_fits_the_gpus_in_its_name_and_uses_all_of_them(recipe: Path, tmp_path: Path) -> None:
    config = load_config(TrainConfig, recipe)
    name, _, gpus = recipe.stem.rpartition("_")
    assert config.gpus == int(gpus)
    assert Path(config.model.policy).name == MODELS[name][0]
    planner = Planner(config, "h100-80", GPUS["h100-80"])
    assert planner.problems() == []
    (referee,) = planner.referees
    assert referee.family != planner.policy.family, "a referee of the policy's own family is lenient"
    crop = config.verification.crop_size
    assert all(side % referee.vision.tile == 0 for side in crop)
    assert crop[0] * crop[1] / referee.vision.tile**2 >= 49
    assert config.learner.policy.gradient_checkpointing
    assert config.pacing.groups_per_step * config.steps == PROMPTS
    saved = tmp_path / "config.yaml"
    saved.write_text(to_yaml(config))
    assert load_config(TrainConfig, saved) == config


@pytest.mark.parametrize("recipe", COMPARED, ids=lambda recipe: recipe.stem)
def test_a_recipe_to_compare_with_fits_eight_gpus(recipe: Path) -> None:
    config = load_config(TrainConfig, recipe)
    assert config.gpus == 8
    assert Planner(config, "h100-80", GPUS["h100-80"]).problems() == []
    base = load_config(TrainConfig, next(recipe for recipe in RECIPES if recipe.stem == "qwen2_5_vl_7b_8"))
    if recipe.parent.name == "ablation":
        differ = {f.name for f in fields(base) if getattr(base, f.name) != getattr(config, f.name)} - {"run_dir"}
        assert differ == ({"model"} if recipe.stem.startswith("referee") else {"reward"})


def test_published_settings() -> None:
    """As the papers report them: arXiv 2510.20579 and 2604.04379."""
    open_o3, rler = (load_config(TrainConfig, FOLDER / f"published/{name}_7b_8.yaml") for name in ("open_o3", "rler"))
    for config in (open_o3, rler):
        assert (config.sampling.group_size, config.algorithm.kl.coefficient, config.contract.frames) == (4, 0.04, 16)
        assert (config.algorithm.clip_low, config.algorithm.clip_high) == (0.2, 0.2)
    assert (open_o3.algorithm.loss, open_o3.pacing.staleness, open_o3.sampling.max_tokens) == ("gspo", 0, 768)
    assert (open_o3.learner.schedule.lr, open_o3.learner.zero.weight_decay) == (1e-6, 0.01)
    assert rler.learner.policy.lora is not None
    assert (rler.learner.policy.lora.rank, rler.learner.policy.lora.alpha, rler.learner.schedule.lr) == (8, 16, 1e-5)
    assert "keyframes" in rler.template.question
    assert set(rler.template.tasks) == {"other", "General video QA MCQ", "multiple choice"}


def test_a_colocated_learner_gets_what_the_engines_leave() -> None:
    recipe = next(recipe for recipe in RECIPES if recipe.stem == "qwen3_vl_8b_1")
    whole = GPUS["h100-80"].memory_gib
    planner = Planner(load_config(TrainConfig, recipe), "h100-80", GPUS["h100-80"])
    learner, engine, referee = planner.roles(planner.split)
    assert [role.limit / 2**30 for role in (learner, engine, referee)] == pytest.approx(
        [0.39 * whole, 0.33 * whole, 0.28 * whole]
    )
    full = load_config(TrainConfig, recipe, ["learner.packing.token_budget=32768"])
    (problem,) = Planner(full, "h100-80", GPUS["h100-80"]).problems()
    assert problem.startswith("learner: ")
    assert "on a GPU of 30.8 GiB beside the engines" in problem
