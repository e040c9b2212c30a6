"""The page without a browser: whatever texts it shows, it loads nothing and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from orchestration.run_report.browser import Browser
from orchestration.run_report.charts import Chart, Line
from orchestration.run_report.facts import BeforeAfter, Card, Change, Stage
from orchestration.run_report.page import Report, page
from orchestration.run_report.settings_table import Row

HIDDEN = "\u202e\u2028\u200b\x1b"
HOSTILE = f'</script></style></title><script>alert(1)</script><img src=x onerror="y"> {{{{ 7*7 }}}} \' & {HIDDEN}'
SHOWN = re.sub(f"[{HIDDEN}]", "\ufffd", HOSTILE)


class Read(HTMLParser):
    """The elements of a page with their attributes, its text, and the content of its scripts."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["script"]:
            self.scripts.append(data)
        else:
            self.text += data


@pytest.fixture(scope="module")
def hostile() -> str:
    """A page whose every text is hostile."""
    card = Card(
        *(HOSTILE, HOSTILE, "finished", "It wrote summary.json at its end."),
        facts=(("Policy", HOSTILE),),
        troubles=((HOSTILE, HOSTILE),),
        stages=(Stage("trains", 1.0, 1.0),),
        bound="",
        summary=((HOSTILE, HOSTILE),),
        notes=(HOSTILE,),
    )
    entry = {"question": HOSTILE, "spread": float("nan")}
    chart = Chart("Reward", HOSTILE, "", (Line(0, np.arange(2.0), np.arange(2.0), "mean"),))
    return page(
        Report(
            cards=[card],
            heldout=[BeforeAfter(0, "greedy", 2, (Change("Accuracy", 0.5, None), Change("IoU", 0.5, 0.6, -0.1, 0.3)))],
            charts=[chart],
            settings=[Row(HOSTILE, (HOSTILE,), HOSTILE, False)],
            browser=Browser(entries=[entry], images=[], recorded=9, reasons={"evenly": 1}, left_out=3, notes=[[]]),
            made=HOSTILE,
        )
    )


def test_hostile_text_is_text_and_nothing_in_the_page_is_hidden(hostile: str) -> None:
    read = Read(hostile)
    assert read.text.count(SHOWN) >= 12
    assert not set(HIDDEN) & set(re.sub(r"\\u\w{4}", "", hostile))
    assert not {"img", "iframe", "object", "embed", "link", "base"} & set(read.tags)
    assert not [name for name, _ in read.attributes if name.startswith("on") or name in ("src", "srcset", "action")]
    assert all(value.startswith("#") for name, value in read.attributes if name == "href" and value)
    assert "49" not in read.text


def test_the_policy_names_the_one_script_and_the_data_are_whole(hostile: str) -> None:
    data, script = (text for text in Read(hostile).scripts if text.strip())
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', hostile)
    assert policy.replace("&#39;", "'") == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )
    content = json.loads(data)
    assert content["runs"] == [{"name": SHOWN, "colour": "#3d85c6"}]
    assert content["entries"] == [{"question": HOSTILE, "spread": None}], "texts of entries are made visible before"


def test_values_that_are_not_known_are_dashes_and_what_is_left_out_is_said(hostile: str) -> None:
    text = " ".join(Read(hostile).text.split())
    assert "Accuracy0.500–" in text
    assert "-0.100 to +0.300" in text
    assert "1 of 9 recorded prompts are on this page" in text
    assert "3 more that were chosen are left out" in text
