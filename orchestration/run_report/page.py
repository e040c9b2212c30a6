"""The report as one HTML page, from what was read and chosen.

Guarantees: the page loads nothing; it runs one script, its own, which its content security policy names by its digest;
Jinja escapes every text, the data for the script cannot end its element, and no character of a model or a user is
invisible (evidence/visible); equal content gives equal pages.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps

from evidence.drawing import CLAIM_COLOURS
from evidence.plain import plain
from evidence.visible import visible
from orchestration.run_report.browser import PLACES, Browser
from orchestration.run_report.charts import Chart
from orchestration.run_report.facts import BeforeAfter, Card
from orchestration.run_report.plot import DASHES, colour, dash, svg
from orchestration.run_report.settings_table import Row

FOLDER = Path(__file__).parent
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


@dataclass(frozen=True)
class Report:
    """All that the page shows. made: by which command and when."""

    cards: Sequence[Card]
    heldout: Sequence[BeforeAfter]
    charts: Sequence[Chart]
    settings: Sequence[Row]
    browser: Browser
    made: str


def page(report: Report) -> str:
    """The page as HTML."""
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = _environment().get_template("page.html")
    return template.render(
        report=report,
        title=", ".join(card.name for card in report.cards),
        policy=POLICY.format(digest=digest),
        style=(FOLDER / "page.css").read_text(encoding="utf-8"),
        script=script,
        data=htmlsafe_json_dumps(plain(data(report), PLACES), separators=(",", ":")),
        sections=sections(report.charts),
    )


def data(report: Report) -> dict[str, Any]:
    """What the script shows."""
    return {
        "runs": [{"name": visible(card.name), "colour": colour(n)} for n, card in enumerate(report.cards)],
        "entries": report.browser.entries,
        "images": report.browser.images,
        "colours": ["rgb({}, {}, {})".format(*claim) for claim in CLAIM_COLOURS],
    }


def sections(charts: Sequence[Chart]) -> list[tuple[str, list[Chart]]]:
    """The charts by section, in order."""
    by_section: dict[str, list[Chart]] = {}
    for chart in charts:
        by_section.setdefault(chart.section, []).append(chart)
    return list(by_section.items())


def legend(chart: Chart) -> list[tuple[str, str, str]]:
    """(label, colour, dashes) of the several lines of a run, empty for charts whose lines are named by their runs. A
    stacked chart is named from top to bottom."""
    if chart.stacked:
        return [(line.label, colour(line.style), "") for line in reversed(chart.lines)]
    styles = {line.label: (line.label, "currentColor", dash(line)) for line in chart.lines if line.label}
    return list(styles.values())


def _as_text(value: Any) -> Any:
    """Every value of the template passes here, before it is escaped, except for what it calls safe."""
    return value if hasattr(value, "__html__") else visible(str(value), kept="\n\t")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_as_text,
    )
    environment.filters["value"] = lambda value: "–" if value is None else f"{value:.3f}"
    helpers: dict[str, Any] = {"colour": colour, "dash_of": lambda run: DASHES[run % len(DASHES)], "legend": legend}
    environment.globals |= helpers | {"svg": svg}
    return environment
