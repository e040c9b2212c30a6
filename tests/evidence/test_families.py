"""Model families: what is supported, and what a model of another family is told."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from evidence.errors import BadInput
from evidence.families import CONTROL_TOKEN, FAMILIES, JSON_FILES, Family, generation_end_ids, read_family
from evidence.spaces import SPACES


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_family_is_consistent_with_the_modules_that_read_it(family: Family) -> None:
    assert family.box_space in SPACES
    assert all(CONTROL_TOKEN.fullmatch(token) for token in vars(family.tokens).values())
    assert family.step_text is None or "9.5" in family.step_text.format(time=9.5)


def test_the_family_is_that_of_config_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_vl"}))
    assert read_family(tmp_path) is FAMILIES["qwen3_vl"]


@pytest.mark.parametrize("content", [{"model_type": "llava"}, {}])
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


@pytest.mark.parametrize("name", ["config.json", *JSON_FILES])
@pytest.mark.parametrize(
    ("content", "fault"), [(b"{", "not valid JSON"), (b"\xff", "not valid JSON"), (b"[]", "not list")]
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, fault: str) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=f"{re.escape(str(tmp_path / name))}: .*{fault}"):
        read_family(tmp_path)


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        ({"eos_token_id": 5}, (5,)),
        ({"eos_token_id": [5, 7]}, (5, 7)),
        ({"eos_token_id": None}, ()),
        ({}, ()),
        (None, ()),
    ],
)
def test_end_tokens_of_the_generation_config(tmp_path: Path, content: object, ids: tuple[int, ...]) -> None:
    if content is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(content))
    assert generation_end_ids(tmp_path) == ids


@pytest.mark.parametrize("value", ["5", [None], True, -1, {"a": 1}, 5.0])
def test_end_tokens_that_are_no_ids_are_refused(tmp_path: Path, value: object) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    with pytest.raises(BadInput, match="must be a token id, a list of token ids, or null"):
        generation_end_ids(tmp_path)


def test_checkpoint_names_of_the_vision_tower() -> None:
    family = FAMILIES["qwen2_5_vl"]
    assert family.in_vision_tower("model.visual.blocks.0.attn.qkv.weight")
    assert not family.in_vision_tower("model.visualiser.weight")
    assert not family.in_vision_tower("model.language_model.norm.weight")
