"""Model families: what is supported, and what a model of another family is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evidence.errors import BadInput
from evidence.families import CONTROL_TOKEN, FAMILIES, Family, read_family
from evidence.spaces import SPACES


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_family_is_consistent_with_the_modules_that_read_it(family: Family) -> None:
    assert family.box_space in SPACES
    assert all(CONTROL_TOKEN.fullmatch(token) for token in vars(family.tokens).values())
    assert family.step_text is None or "9.5" in family.step_text.format(time=9.5)


def test_the_family_is_that_of_config_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_vl"}))
    assert read_family(tmp_path) is FAMILIES["qwen3_vl"]


@pytest.mark.parametrize("content", [{"model_type": "llava"}, {}, []])
def test_another_family_is_refused_by_its_name(tmp_path: Path, content: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))
    found = "llava" if content == {"model_type": "llava"} else "None"
    with pytest.raises(BadInput, match=f"model_type = {found}: must be {' or '.join(FAMILIES)}; give"):
        read_family(tmp_path)


def test_a_folder_without_a_readable_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no model here \(config.json is missing\)"):
        read_family(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BadInput, match=r"config.json: not valid JSON"):
        read_family(tmp_path)


def test_checkpoint_names_of_the_vision_tower() -> None:
    family = FAMILIES["qwen2_5_vl"]
    assert family.in_vision_tower("model.visual.blocks.0.attn.qkv.weight")
    assert not family.in_vision_tower("model.visualiser.weight")
    assert not family.in_vision_tower("model.language_model.norm.weight")
