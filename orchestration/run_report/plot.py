"""Curves as inline SVG, drawn by matplotlib.

Guarantees: an SVG holds numbers and no text of a run; it has no background, takes its ink from the page (currentColor),
so that it is readable in dark and light, and equal charts give equal SVGs.
"""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from orchestration.run_report.charts import Chart, Line, smoothed

# Of runs, or of the layers of a stacked chart, in turn: readable on white and on black.
COLOURS = ("#3d85c6", "#d9822b", "#2e9e6b", "#b05fc8", "#c94f4f", "#7a8b2f", "#4d9aa8", "#94775a")
DASHES = ("", "5 2", "1.5 1.5", "7 2 1.5 2")  # of runs, and of several lines of a run
INK, GRID = "#010203", "#010204"  # stand for colours of the page
SIZE = (3.9, 2.05)  # inches; about 280 points wide, so that a phone shows the text at its size
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ser",
    "font.family": "sans-serif",
    "font.sans-serif": ["system-ui", "DejaVu Sans", "sans-serif"],
    "font.size": 8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "axes.formatter.useoffset": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
# Names of groups, which would repeat from chart to chart, the document's head, and its size, which the page sets.
HEAD = re.compile(r"^.*?(?=<svg)", re.DOTALL)
METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
GROUP_ID = re.compile(r' id="[a-z0-9.]+_\d+"')
SIZES = re.compile(r' (?:width|height)="[\d.]+pt"')


def svg(chart: Chart) -> str:
    """The chart without title and legend."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        if chart.stacked:
            _stack(axes, chart.lines)
        else:
            first = max(line.run for line in chart.lines)
            for line in chart.lines:  # of runs with equal values, the first stays visible below the others
                _draw(axes, line, width=1.6 + 0.9 * (first - line.run) * bool(line.label))
        axes.grid(axis="y", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("step")
        axes.margins(x=0.02)
        file = io.StringIO()
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    text = METADATA.sub("", HEAD.sub("", file.getvalue()))
    text = GROUP_ID.sub("", SIZES.sub("", text, count=2))
    return text.replace(INK, "currentColor").replace(GRID, "var(--line)").strip()


def dash(line: Line) -> str:
    """The dashes of a line: those of its style where a run has several lines, else those of its run."""
    return DASHES[(line.style if line.label else line.run) % len(DASHES)]


def colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _draw(axes: Axes, line: Line, width: float) -> None:
    shown = smoothed(line.y) if line.smooth else line.y
    marker = "o" if np.count_nonzero(~np.isnan(line.y)) < 12 else None
    pattern = [float(part) for part in dash(line).split()]
    if line.smooth and not np.array_equal(shown, line.y, equal_nan=True):
        axes.plot(line.x, line.y, color=colour(line.run), linewidth=0.7, alpha=0.35)
    style = (0, pattern) if pattern else "solid"
    axes.plot(line.x, shown, color=colour(line.run), linewidth=width, linestyle=style, marker=marker, markersize=3)


def _stack(axes: Axes, lines: tuple[Line, ...]) -> None:
    colours = [colour(line.style) for line in lines]
    axes.stackplot(lines[0].x, *(line.y for line in lines), colors=colours, linewidth=0)
    axes.set_ylim(bottom=0)
