"""What is kept of the ranks on disk: sharded checkpoints to go on from, and whole weights in Hugging Face format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import deepspeed
import torch
from safetensors.torch import save_file


def save_checkpoint(engine: deepspeed.DeepSpeedEngine, folder: Path, tag: str) -> None:
    # What is frozen is in the model's folder.
    engine.save_checkpoint(str(folder), tag=tag, exclude_frozen_parameters=True)


def load_checkpoint(engine: deepspeed.DeepSpeedEngine, folder: Path, tag: str) -> None:
    """Raises FileNotFoundError if the checkpoint is not there."""
    path, _ = engine.load_checkpoint(str(folder), tag=tag, load_module_strict=False)
    if path is None:
        raise FileNotFoundError(f"{folder}/{tag}: no checkpoint of this model")


def save_hugging_face(state: dict[str, torch.Tensor], folder: Path, source: Path) -> None:
    """Write whole weights `state` by checkpoint name, with the config and the tokenizer and processor of `source`.

    The folder appears whole or not at all, in place of one that was there."""
    whole, folder = folder, folder.with_name(folder.name + ".part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in source.iterdir():
        if file.suffix in {".json", ".jinja", ".txt"} and not file.name.startswith("model.safetensors"):
            shutil.copy(file, folder / file.name)
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = str(next(iter(state.values())).dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    if whole.exists():
        shutil.rmtree(whole)
    folder.rename(whole)
