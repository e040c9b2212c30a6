"""Writes the files of a checkpoint while training goes on.

Guarantees: `save` returns once the state is copied out of the tensors that training changes; the copies are written
and synced to disk by one thread; a write that fails is reported by `outcome` and never disturbs training.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine

from evidence.files import sync


@dataclass(frozen=True)
class Written:
    """The files that a rank wrote, with their sizes in bytes by name; seconds: how long that took; error: why they
    could not all be written."""

    files: dict[str, int]
    seconds: float = 0.0
    error: str | None = None


class BackgroundWriter(TorchCheckpointEngine):
    """DeepSpeed's checkpoint engine of one rank. `begin` starts to write what was saved since the last call."""

    def __init__(self, config: Any):
        super().__init__(config)
        self._copies: list[tuple[Path, Any]] = []
        self._thread: threading.Thread | None = None
        self._outcome = Written({})

    def save(self, state_dict: Any, path: str) -> None:
        """Copy out what the file at `path` will hold."""
        self._copies.append((Path(path), copied(state_dict)))

    def begin(self) -> None:
        self._thread = threading.Thread(target=self._write, args=(self._copies,), daemon=True)
        self._copies = []
        self._thread.start()

    def outcome(self, timeout_s: float = 0.0) -> Written | None:
        """What was written since `begin`, or None if that is not done within `timeout_s` seconds."""
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                return None
        return self._outcome

    def _write(self, copies: list[tuple[Path, Any]]) -> None:
        files = {}
        began = time.monotonic()
        try:
            for path, state in copies:
                torch.save(state, path)
                sync(path)
                files[path.name] = path.stat().st_size
            self._outcome = Written(files, time.monotonic() - began)
        except Exception as error:  # of any kind: the outcome of the checkpoint before would pass for this one's
            self._outcome = Written(files, error=f"{path}: {error or type(error).__name__}".splitlines()[0])


def copied(state: Any) -> Any:
    """`state` with every tensor in its dicts, lists and tuples copied to main memory."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        # Keeps the kind of mapping, such as OrderedDict.
        return type(state)((key, copied(value)) for key, value in state.items())
    if type(state) in (list, tuple):
        return type(state)(copied(value) for value in state)
    return state
