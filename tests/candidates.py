"""Candidates for tests of elections, and every method under one of its configurations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evaluation.election import METHODS
from evaluation.election.candidates import Candidate
from evaluation.election.election import Method


def candidate(answer: str | None, cited: Sequence[int] = (), thought: str = "I look", **fields: Any) -> Candidate:
    """A candidate in RLER's form, shown 16 frames. None: without an answer."""
    text = f"<think>{thought}</think><keyframes>{list(cited)}</keyframes>"
    text += "" if answer is None else f"<answer>{answer}</answer>"
    return Candidate(text, **({"frames": 16, "crop_scores": (2,), "logprobs": (-0.5,)} | fields))


def methods() -> list[Method]:
    """Each method with its defaults."""
    return [method() for method in METHODS.values()]
