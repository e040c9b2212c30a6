"""Digests that identify a file or a model folder by its content, wherever it is stored."""

from __future__ import annotations

import hashlib
from pathlib import Path

# Weights, tokenizer (merges.txt, tokenizer.model) and configs. The model card (README.md) may change.
DIGESTED = (".safetensors", ".bin", ".pt", ".json", ".jinja", ".txt", ".model")


def model_digest(folder: str) -> str:
    """SHA-256 (32 hex digits) over the names and bytes of a model folder's files with a suffix in DIGESTED."""
    digest = hashlib.sha256()
    for file in sorted(path for path in Path(folder).iterdir() if path.suffix in DIGESTED):
        digest.update(file.name.encode())
        digest.update(bytes.fromhex(file_digest(file)))
    return digest.hexdigest()[:32]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
