"""The thread that writes a rank's part of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from learner.zero.background_writer import BackgroundWriter


def test_a_failure_of_any_kind_is_not_taken_for_the_success_before(tmp_path: Path) -> None:
    writer = BackgroundWriter(None)
    writer.save({"weights": torch.zeros(3)}, str(tmp_path / "a.pt"))
    writer.begin()
    first = writer.outcome(10.0)
    assert first is not None
    assert first.error is None
    assert first.files == {"a.pt": (tmp_path / "a.pt").stat().st_size}
    writer.save({"weights": lambda: None}, str(tmp_path / "b.pt"))  # which pickle refuses by errors of its own
    writer.begin()
    second = writer.outcome(10.0)
    assert second is not None
    assert second.error is not None
    assert second.error.startswith(f"{tmp_path}/b.pt: ")
