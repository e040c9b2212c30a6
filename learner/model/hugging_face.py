"""Writes weights as a Hugging Face folder, which transformers and vLLM load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file

from evidence.files import whole_folder

FILE_BYTES = 5 * 10**9  # maximum size of a file of weights, as on the Hub
PREFIX = "model.safetensors"


def save_hugging_face(
    tensors: Iterable[tuple[str, torch.Tensor]], folder: Path, source: Path, file_bytes: int = FILE_BYTES
) -> None:
    """Write `tensors`, given by checkpoint name and all of one dtype, with the config, tokenizer and processor files of
    the model folder `source`. At most `file_bytes` of tensors are in memory at once.

    The folder appears complete or not at all, and replaces an existing one."""
    with whole_folder(folder) as part:
        for file in source.iterdir():
            if file.suffix in {".json", ".jinja", ".txt"} and not file.name.startswith(PREFIX):
                shutil.copy(file, part / file.name)
        dtype = _save_weights(tensors, part, file_bytes)
        config = json.loads((part / "config.json").read_text(encoding="utf-8"))
        config["dtype"] = str(dtype).removeprefix("torch.")
        (part / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _save_weights(tensors: Iterable[tuple[str, torch.Tensor]], folder: Path, file_bytes: int) -> torch.dtype:
    """Write one file, or several with an index. Returns the dtype of the tensors."""
    files: list[list[str]] = []
    held: dict[str, torch.Tensor] = {}
    total = free = 0

    def write() -> None:
        part = folder / f"{len(files)}.part"
        save_file(held, part, metadata={"format": "pt"})
        shutil.copymode(folder / "config.json", part)  # safetensors makes it readable for the owner only
        files.append(list(held))
        held.clear()

    for name, tensor in tensors:
        if held and tensor.nbytes > free:
            write()
        if not held:
            free = file_bytes
        held[name] = tensor
        free -= tensor.nbytes
        total += tensor.nbytes
    dtype = tensor.dtype
    write()
    if len(files) == 1:
        (folder / "0.part").rename(folder / PREFIX)
        return dtype
    index: dict[str, str] = {}
    for number, names in enumerate(files):
        file = f"model-{number + 1:05d}-of-{len(files):05d}.safetensors"
        (folder / f"{number}.part").rename(folder / file)
        index |= dict.fromkeys(names, file)
    content = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / f"{PREFIX}.index.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return dtype
