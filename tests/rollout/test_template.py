"""Prompt templates: the files in configs/templates, overrides, and texts that are refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from evidence.errors import BadInput
from evidence.types import FrameInfo, Sample
from orchestration.config import load_config
from rollout.prompt import ChatEncoder, build_prompt
from rollout.template import PromptTemplate

ROOT = Path(__file__).parents[2]
TASKS = (
    "visual QA",
    "temporal-spatial free-form QA",
    "temporal QA",
    "temporal QA (MCQ)",
    "General video QA MCQ",
    "General video QA Free-form",
)


@dataclass
class Config:
    template: PromptTemplate = field(default_factory=PromptTemplate)


@dataclass
class World:
    template: PromptTemplate = field(default_factory=PromptTemplate)
    contract: dict = field(default_factory=dict)
    verification: dict = field(default_factory=dict)


def asked(template: PromptTemplate, task: str) -> str:
    return template.ask(Sample("a", "s", task, "What {is} it?", "", video_path="v.mp4"), 7.0)


@pytest.mark.parametrize("file", sorted((ROOT / "configs/templates").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_style_has_a_prompt_for_every_task(file: Path) -> None:
    template = load_config(Config, file).template
    for task in (*TASKS, "a task of the user's own"):
        text = asked(template, task)
        assert "What {is} it?" in text
        assert "<answer>" in text
        assert "{task}" not in text


def test_open_o3_words_each_task_differently() -> None:
    template = load_config(Config, ROOT / "configs/templates/open_o3.yaml").template
    texts = {task: asked(template, task) for task in TASKS}
    assert len(set(texts.values())) == len(TASKS)
    assert "Correct Option: " in texts["temporal QA (MCQ)"]
    assert "7.0 seconds long" in texts["temporal QA"]
    assert "seconds long" not in texts["visual QA"], "a picture has no length"


@pytest.mark.parametrize("file", sorted((ROOT / "configs/templates").glob("*.yaml")), ids=lambda file: file.stem)
@pytest.mark.parametrize("task", ["general video QA MCQ", "multiple choice", "Multiple Choice"])
def test_all_names_of_multiple_choice_share_one_prompt(file: Path, task: str) -> None:
    template = load_config(Config, file).template
    assert asked(template, task) == asked(template, "General video QA MCQ") != asked(template, "other")


def test_one_task_can_be_reworded_alone(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"include: ['{ROOT / 'configs/templates/open_o3.yaml'}']\n"
        "template: {tasks: {temporal QA: 'When, in {duration} s?'}}\n"
    )
    mine, theirs = (load_config(Config, f).template for f in (file, ROOT / "configs/templates/open_o3.yaml"))
    assert asked(mine, "temporal QA") == "\nWhen, in 7.0 s?\nQuestion: What {is} it?"
    assert {t: asked(mine, t) for t in TASKS if t != "temporal QA"} == {
        t: asked(theirs, t) for t in TASKS if t != "temporal QA"
    }


@pytest.mark.parametrize(
    ("space", "units"),
    [
        ("resized", "in pixels of the"),
        ("original", "in original pixels of the"),
        ("thousand", "in 0-1000 coordinates of the"),
        ("normalised", "in 0-1 coordinates of the"),
    ],
)
def test_the_prompt_names_the_box_space(space: str, units: str) -> None:
    override = [f"template.box_space={space}"]
    template = load_config(Config, ROOT / "configs/templates/open_o3.yaml", override).template
    assert all(units in asked(template, task) for task in TASKS)
    assert units in asked(PromptTemplate(box_space=space), "temporal QA")


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        ({"frame": "{idx}: "}, r"^frame = .* may only use \{index\}, \{index0\}, \{time\}"),
        ({"frame": "{index[0]}"}, r"^frame = .* may only use \{index\}, \{index0\}, \{time\}"),
        ({"question": "{question"}, r"^question = .*write a literal brace twice"),
        ({"tasks": {"other": "{question}"}}, r"^tasks\.other = "),
        ({"tasks": {"temporal QA": ""}}, "no key 'other'"),
        ({"box_space": "pixels"}, "^box_space = pixels: .*resized, original, thousand, normalised"),
    ],
)
def test_invalid_texts_are_refused(texts: dict, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        PromptTemplate(**texts)


def test_the_prompt_of_the_embedded_world_is_the_one_its_weights_were_trained_on() -> None:
    template = load_config(World, ROOT / "configs/world/shapes.yaml").template
    encoder = ChatEncoder(ROOT / "assets/policy")
    info = FrameInfo("key", (0.0, 1.0), (56, 56), (112, 112), 8.0)
    sample = Sample("s", "shapes", "temporal-spatial free-form QA", "Where is red?", "left", video_path="v.mp4")
    prompt = build_prompt(encoder, template, sample, info)
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    assert encoder.tokenizer.decode(prompt.request_ids) == (
        f"<|im_start|>user\n0.0{image}1.0{image}Where is red?<|im_end|>\n<|im_start|>assistant\n"
    )
