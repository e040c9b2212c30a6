"""The page of `ser data show`: samples with their frames, labels and prompts, as HTML. Pure.

Guarantees: the page loads nothing but the images beside it and runs nothing, as its content security policy demands;
every text is escaped, whatever it holds, and none of its characters is invisible (evidence/visible).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, StrictUndefined

from evidence.drawing import LEAST_SIDE
from evidence.types import FrameInfo, KeyFrame
from evidence.visible import visible
from orchestration.answering.page_parts import box_text, css_colour
from orchestration.answering.page_style import STYLE
from orchestration.showing.page_template import OWN_STYLE, TEMPLATE
from orchestration.showing.shown import ShownSample, Source

# In the page's head, so that a folder can be recognised as one that the command wrote.
GENERATOR = "<meta name='generator' content='ser data show'>"


def page(samples: Sequence[ShownSample], source: Source) -> str:
    """The page as HTML."""
    return _TEMPLATE.render(samples=samples, source=source, generator=GENERATOR, style=STYLE + OWN_STYLE)


def _as_text(value: Any) -> Any:
    """Every value of the template passes here, before it is escaped, except for markup: the output of the template's
    macros, and what it calls safe."""
    return value if hasattr(value, "__html__") else visible(str(value), kept="\n\t")


def _seconds(time: float) -> str:
    return f"{time:.2f} s"


def _spans(spans: Sequence[tuple[float, float]]) -> str:
    return ", ".join(f"{_seconds(start)} to {_seconds(end)}" for start, end in spans)


def _key_frames(keys: Sequence[KeyFrame]) -> str:
    return ", ".join(f"{key.idx} at {_seconds(key.time)}" for key in keys)


def _file(info: FrameInfo) -> str:
    size = f"{info.original_size[0]} × {info.original_size[1]} pixels"
    return f"{_seconds(info.duration)}, {size}" if info.duration else size


def _frames(info: FrameInfo) -> str:
    count = len(info.times)
    return f"{count} frame{'s' * (count > 1)} of {info.size[0]} × {info.size[1]} pixels"


def _environment() -> Environment:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_as_text
    )
    environment.filters |= {
        "box": box_text,
        "css_colour": css_colour,
        "file": _file,
        "frames": _frames,
        "key_frames": _key_frames,
        "seconds": _seconds,
        "spans": _spans,
        "thousands": "{:,}".format,
    }
    environment.globals |= {"SMALL": LEAST_SIDE}
    return environment


_TEMPLATE = _environment().from_string(TEMPLATE)
