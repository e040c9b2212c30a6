"""A model folder, of one file or several, loads as the model it was written from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText
from transformers.utils.logging import enable_progress_bar

from learner.checkpoints import Record
from learner.model.hugging_face import save_hugging_face
from learner.model.tiny import create_tiny_model
from learner.zero.consolidate import WholeModel


@pytest.mark.parametrize("file_bytes", [10**9, 10**6, 1])
def test_a_written_model_loads_unchanged(tiny_model: Path, tmp_path: Path, file_bytes: int) -> None:
    model = AutoModelForImageTextToText.from_pretrained(tiny_model, dtype=torch.bfloat16)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    out = tmp_path / "out"
    save_hugging_face(iter(parameters.items()), out, tiny_model, file_bytes)
    files = sorted(out.glob("model*.safetensors"))
    if file_bytes == 10**9:
        assert [file.name for file in files] == ["model.safetensors"]
    else:
        index = json.loads((out / "model.safetensors.index.json").read_text())
        assert set(index["weight_map"]) == set(parameters)
        assert set(index["weight_map"].values()) == {file.name for file in files}
        assert index["metadata"]["total_size"] == sum(p.nbytes for p in parameters.values())
        largest = max(p.nbytes for p in parameters.values())
        assert all(file.stat().st_size < max(file_bytes, largest) + 10_000 for file in files)
        assert len(files) == (len(parameters) if file_bytes == 1 else 4)
    again = AutoModelForImageTextToText.from_pretrained(out)
    assert again.dtype == torch.bfloat16
    for name, p in again.named_parameters():
        assert torch.equal(p, parameters[name]), name
    assert (out / "tokenizer.json").read_bytes() == (tiny_model / "tokenizer.json").read_bytes()


def test_creating_and_loading_a_model_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    enable_progress_bar()  # the state in a new process
    create_tiny_model(tmp_path / "model", corpus=["a"])
    assert capsys.readouterr().err == ""
    enable_progress_bar()
    record = Record(str(tmp_path / "model"), "", 1, "float32", False, None, {}, {}, {})
    assert WholeModel(tmp_path / "step-1.json", record, average=False).numel > 0
    assert capsys.readouterr().err == ""
