"""Which checkpoint of a run is the best by `checkpoint.best`, a metric of its evaluations.

Guarantees: only a checkpoint that exists can be the best, of the step that was measured; neither the best one nor one
whose step is still measured is removed; `best.json` beside the checkpoints names the best one, and is written whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from evidence.files import write_text
from learner.checkpoints import CheckpointConfig, record_of

BEST = "best.json"


@dataclass(frozen=True)
class Best:
    """The best checkpoint: its step, and the value of the metric."""

    step: int
    metric: str
    value: float


class BestCheckpoint:
    """The best checkpoint in `folder`. `settle` may be called by another thread than the other methods, not by two."""

    def __init__(self, folder: Path, config: CheckpointConfig):
        self.folder, self.config = folder, config
        self.best: Best | None = None
        self._awaited: set[int] = set()
        self._measured: dict[int, float] = {}  # values of steps whose checkpoints may still be written

    @property
    def kept(self) -> set[int]:
        """The steps whose checkpoints must not be removed."""
        best = set() if self.best is None else {self.best.step}
        return best | set(self._awaited) | set(self._measured)

    def wait_for(self, step: int) -> None:
        """The weights after `step` are being measured."""
        if self.config.best is not None:
            self._awaited.add(step)

    def measured(self, step: int, value: float | None) -> None:
        """The metric of the weights after `step`; None if it could not be measured."""
        if step in self._awaited and value is not None and math.isfinite(value):
            self._measured[step] = value
        self._awaited.discard(step)

    def settle(self, writing: int | None = None) -> bool:
        """Compare the checkpoints that were measured, and record the best one. Returns whether there were any.
        `writing`: the step of the checkpoint that is still being written."""
        before = len(self._measured)
        for step, value in list(self._measured.items()):
            if step == writing:
                continue
            if record_of(self.folder, step).exists() and self._is_better(value):
                self.best = Best(step, str(self.config.best), value)
                write_text(self.folder / BEST, json.dumps(asdict(self.best)) + "\n")
            del self._measured[step]
        return len(self._measured) < before

    def restore(self, measured: Mapping[int, float]) -> None:
        """Begin with what earlier evaluations measured, by step: those of the lineage that goes on."""
        self.best, self._awaited, self._measured = None, set(), {}
        if self.config.best is None:
            return
        for step, value in measured.items():
            self.wait_for(step)
            self.measured(step, value)
        self.settle()
        if self.best is None:
            (self.folder / BEST).unlink(missing_ok=True)

    def _is_better(self, value: float) -> bool:
        if self.best is None:
            return True
        return value < self.best.value if self.config.best_is == "lowest" else value > self.best.value
