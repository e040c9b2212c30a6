"""A model's digest changes with every file that could change its output."""

from __future__ import annotations

from pathlib import Path

import pytest

from evidence.digests import model_digest


def test_digest_depends_on_the_weights_and_not_on_their_folder(tmp_path: Path) -> None:
    for name, weights in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(weights)
    a, b, c = (model_digest(str(tmp_path / name)) for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("name", ["merges.txt", "tokenizer.model", "pytorch_model.bin", "config.json"])
def test_digest_depends_on_tokenizer_weights_and_config_and_not_on_the_model_card(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a")
    before = model_digest(str(tmp_path))
    (tmp_path / "README.md").write_text("a card")
    assert model_digest(str(tmp_path)) == before
    (tmp_path / name).write_text("b")
    assert model_digest(str(tmp_path)) != before
