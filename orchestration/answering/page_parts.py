"""Pieces of an answer's page that its sections share. Pure."""

from __future__ import annotations

import html

from evidence.drawing import CLAIM_COLOURS, Colour
from evidence.types import Box
from evidence.visible import visible


def escaped(text: str) -> str:
    """Text of unknown origin for HTML, in an element or in a quoted attribute."""
    return html.escape(visible(text, kept="\n\t"))


def colour(number: int) -> Colour:
    """The colour of claim `number`, from 1."""
    return CLAIM_COLOURS[(number - 1) % len(CLAIM_COLOURS)]


def css_colour(number: int) -> str:
    """The attribute that gives an element the colour of claim `number`."""
    return "style='--colour: rgb({}, {}, {})'".format(*colour(number))


def badge(number: int) -> str:
    """The number of a claim in its colour."""
    return f"<span class='badge' {css_colour(number)}>{number}</span>"


def box_text(box: Box) -> str:
    return f"[{', '.join(f'{value:.0f}' for value in box)}]"
