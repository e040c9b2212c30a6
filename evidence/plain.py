"""Plain data for JSON that is read by people and programs: numbers that JSON cannot hold become null.

State that must be read back bit for bit goes through evidence/codec, which keeps NaN and infinities.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np


def plain(value: Any, places: int | None = None) -> Any:
    """`value` as data that JSON can hold: numpy scalars and arrays become numbers and lists, NaN and infinities null.

    places: decimal places that floats are rounded to; None keeps all.
    """
    if isinstance(value, dict):
        return {str(key): plain(item, places) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist(), places)
    if isinstance(value, list | tuple):
        return [plain(item, places) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if places is None else round(value, places) + 0.0  # no -0.0
    return value


def dumps(value: Any, places: int | None = None, **options: Any) -> str:
    """`plain(value, places)` as JSON. options: as for json.dumps."""
    return json.dumps(plain(value, places), allow_nan=False, **options)
