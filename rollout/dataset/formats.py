"""The formats known, and which of them a file is in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from evidence.errors import BadInput
from rollout.dataset.format import Format
from rollout.dataset.open_o3 import OPEN_O3
from rollout.dataset.ser import SER
from rollout.dataset.time_r1 import TIME_R1, TVGBENCH
from rollout.dataset.video_r1 import EASY_VIDEO_R1, VIDEO_R1
from rollout.dataset.vstar import V_STAR

FORMATS = {each.name: each for each in (SER, OPEN_O3, VIDEO_R1, EASY_VIDEO_R1, TIME_R1, TVGBENCH, V_STAR)}


def named(name: str) -> Format:
    """Raises BadInput for a name that is none."""
    if name not in FORMATS:
        raise BadInput(f"format = {name}: it has to be one of {', '.join(FORMATS)}")
    return FORMATS[name]


def detect(rows: Iterable[dict[str, Any]]) -> Format:
    """The one format that the keys of `rows` fit. Raises BadInput, with what was seen, if none or several do."""
    keys = {key for row in rows for key, value in row.items() if value is not None}
    fitting = [each for each in FORMATS.values() if each.fits(keys)]
    if len(fitting) == 1:
        return fitting[0]
    seen = f"the keys {', '.join(sorted(keys))}" if keys else "no keys"
    if fitting:
        raise BadInput(
            f"its first rows have {seen}, which fit {' and '.join(each.name for each in fitting)}; name the format"
        )
    known = "; ".join(each.described for each in FORMATS.values())
    raise BadInput(f"its first rows have {seen}, which fit no known format; known are: {known}")
