"""Saves a checkpoint of ranks outside a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learner.checkpoints import CheckpointConfig
from orchestration.supervision.checkpoint_writer import CheckpointWriter
from orchestration.supervision.learner_gang import LearnerGang


def save(gang: LearnerGang, folder: Path, step: int, state: Mapping[str, Any] | None = None) -> None:
    """Save the checkpoint of `step` and wait for it."""
    writer = CheckpointWriter(gang, folder, CheckpointConfig())
    writer.begin(step, state or {})
    writer.finish()
    writer.require(step)
