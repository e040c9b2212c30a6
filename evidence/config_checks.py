"""What a section of a config asks of its own keys: each raises BadInput, in one line that says what would be right.

The line begins with the key as the section itself calls it; `load_config` puts before it where the section stands.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from evidence.errors import BadInput


def require(right: bool, key: str, value: object, wanted: str) -> None:
    """Raises BadInput, saying what is `wanted`, unless `right`."""
    if not right:
        raise BadInput(f"{key} = {value}: it has to be {wanted}")


def require_one_of(section: object, known: Iterable[str], *keys: str) -> None:
    for key in keys:
        value = getattr(section, key)
        require(value in known, key, value, f"one of {', '.join(known)}")


def require_least(section: object, least: int, *keys: str) -> None:
    """`least` or more, and neither infinite nor NaN."""
    for key in keys:
        value = getattr(section, key)
        finite = ", and finite" if isinstance(value, float) else ""
        require(least <= value < math.inf, key, value, f"{least} or more{finite}")


def require_above_zero(section: object, *keys: str) -> None:
    """And neither infinite nor NaN."""
    for key in keys:
        value = getattr(section, key)
        require(0 < value < math.inf, key, value, "above 0, and finite")


def require_share(section: object, *keys: str) -> None:
    for key in keys:
        value = getattr(section, key)
        require(0 <= value <= 1, key, value, "between 0 and 1")


def require_default(section: Any, why: str, *keys: str) -> None:
    """As the class has them: what has no effect is not taken in silence."""
    for key in keys:
        value = getattr(section, key)
        require(value == section.__dataclass_fields__[key].default, key, value, f"left out: {why}")
