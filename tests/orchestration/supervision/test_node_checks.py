"""Nodes of a cluster that lack what a run needs, or have it otherwise, are named before anything starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from nodes import another_node

from evidence.errors import BadInput
from orchestration.supervision.node_checks import BEGINNING, MISSING, difference, node_facts, require_equal_nodes


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(BEGINNING + 8))
    return folder


def test_equal_files_have_equal_facts(model: Path) -> None:
    assert difference(node_facts([str(model)]), node_facts([str(model)])) == ""


@pytest.mark.parametrize(
    ("file", "content"),
    [("config.json", b"{ "), ("config.json", b"{} "), ("model.safetensors", bytes(BEGINNING))],
    ids=["another byte", "longer", "shorter"],
)
def test_another_model_of_the_same_name_is_seen(model: Path, file: str, content: bytes) -> None:
    own = node_facts([str(model)])
    (model / file).write_bytes(content)
    assert difference(own, node_facts([str(model)])).startswith(
        f"{model}/{file}: differs from that on the driver's node"
    )


def test_a_model_with_fewer_files_is_seen_and_notes_beside_it_are_not(model: Path) -> None:
    own = node_facts([str(model)])
    (model / "nohup.out").write_text("started")
    assert difference(own, node_facts([str(model)])) == ""
    (model / "config.json").unlink()
    assert difference(own, node_facts([str(model)])).startswith(f"{model}/config.json: is not there")


def test_what_is_not_there_is_said_so(tmp_path: Path) -> None:
    path = str(tmp_path / "no.json")
    facts = node_facts([path])
    assert facts[path] == MISSING
    assert difference(facts | {path: "0"}, facts) == (
        f"{path}: is not there, or cannot be read; it must be at the same path on every node"
    )


def test_another_version_is_named_with_both() -> None:
    own = node_facts([])
    found = difference(own | {"wandb": "0.31.0"}, own | {"wandb": "0.9"})
    assert found == "wandb 0.9, and 0.31.0 on the driver's node; install the same environment on both"


@pytest.mark.slow
def test_a_node_with_another_environment_is_named(ray_cluster: None, tmp_path: Path) -> None:
    """A real second node, whose Python finds another wandb."""
    other = tmp_path / "wandb-9.9.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: wandb\nVersion: 9.9\n")
    with another_node():
        require_equal_nodes([str(tmp_path)])
    env = os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    message = r"^node [\d.]+: wandb 9\.9, and 0\.\d+\.\d+ on the driver's node; install"
    with another_node(env=env), pytest.raises(BadInput, match=message):
        require_equal_nodes([str(tmp_path)])
