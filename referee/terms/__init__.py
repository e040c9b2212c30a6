"""Reward terms: pure functions from a group's completions to one number each (docs/reward.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from referee.terms.answers import accuracy
from referee.terms.form import claim_format

# By the name that a recipe uses them by.
BUILTIN: dict[str, Callable[..., Any]] = {"accuracy": accuracy, "claim_format": claim_format}
