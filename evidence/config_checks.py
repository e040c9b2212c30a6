"""Checks that a config section runs on its own keys. Each raises BadInput with one line that gives the remedy.

The line begins with the key as the section itself calls it; `load_config` prefixes it with the section's own key.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from evidence.errors import BadInput

# No count, size, time or factor of a config is meant to exceed this. The libraries that would get it overflow later,
# without naming the key.
MOST = 10**9
MOST_SEED = 2**32 - 1  # as numpy's seeds; times a million and more, it still fits the engine's 64 bits


def require(right: bool, key: str, value: object, wanted: str) -> None:
    """Raise BadInput with `key = value: must be wanted` unless `right`."""
    if not right:
        raise BadInput(f"{key} = {value}: must be {wanted}")


def require_one_of(section: object, known: Iterable[str], *keys: str) -> None:
    """Require each of the keys' values to be one of `known`."""
    for key in keys:
        value = getattr(section, key)
        require(value in known, key, value, f"one of {', '.join(known)}")


def require_least(section: object, least: int, *keys: str, most: int = MOST) -> None:
    """Require values from `least` to `most`, NaN excluded."""
    for key in keys:
        value = getattr(section, key)
        require(least <= value <= most, key, value, f"{least} or more{_limit(value, most)}")


def require_above_zero(section: object, *keys: str) -> None:
    """Require values above 0 and at most MOST, NaN excluded."""
    for key in keys:
        value = getattr(section, key)
        require(0 < value <= MOST, key, value, f"above 0{_limit(value, MOST)}")


def _limit(value: float, most: int) -> str:
    """The upper limit, for values that exceed it or that are no finite number."""
    if not math.isfinite(value):
        return ", and finite"
    return f", and at most {most:,}" if value > most else ""


def require_share(section: object, *keys: str) -> None:
    """Require values from 0 to 1."""
    for key in keys:
        value = getattr(section, key)
        require(0 <= value <= 1, key, value, "between 0 and 1")


def require_default(section: Any, why: str, *keys: str) -> None:
    """Require the class's default values: a key without effect is refused, never silently ignored. `why`: no effect."""
    for key in keys:
        value = getattr(section, key)
        require(value == section.__dataclass_fields__[key].default, key, value, f"left out: {why}")
