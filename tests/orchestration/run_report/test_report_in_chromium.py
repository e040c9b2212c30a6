"""The page in a real browser: hostile text stays text, the filters work, and a phone needs no sideways scrolling."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from typing import Any

import pytest
from made_run import claim, completion, made_run, small_config

from orchestration import cli
from rollout.dataset.shapes import make_shapes

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OWNED = "document.title='owned';parent.document.title='owned'"
HOSTILE = (
    f'</script><script>{OWNED}</script><img src=x onerror="{OWNED}"><svg onload="{OWNED}"></pre></template>'
    f"<!--<script>\u200b\u202egnp.exe javascript:{OWNED} {{{{ 7 * 7 }}}} ${{{OWNED}}} \u2028 & ' \" &lt;b&gt;"
)
# Opens each prompt in a frame as wide as a desktop and in one as wide as a phone, and writes down what they show.
LOOK = """
const seen = {};
for (const [name, width] of [["desktop", 1280], ["phone", 390]]) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:800px;border:0`;
  frame.src = "page.html";
  frame.onload = () => {
    const page = frame.contentDocument, view = frame.contentWindow;
    const choose = (filter, value) => {
      const field = page.querySelector(`[name=${filter}]`);
      field.value = value;
      field.dispatchEvent(new Event(field.tagName === "SELECT" ? "change" : "input"));
      return page.querySelectorAll(".entry").length;
    };
    const counts = { all: page.querySelectorAll(".entry").length, heldout: choose("kind", "held-out"),
      before: choose("to", "0") };
    page.querySelector(".reset").click();
    counts.spread = choose("spread", "0.5");
    page.querySelector(".reset").click();
    page.querySelectorAll("details").forEach((details) => (details.open = true));
    page.querySelectorAll(".entry > [aria-expanded=false]").forEach((button) => button.click());
    seen[name] = { counts, title: page.title, owned: document.title, width: view.innerWidth,
      content: page.documentElement.scrollWidth, texts: [...page.querySelectorAll("pre")].map((e) => e.textContent),
      elements: [...new Set([...page.querySelectorAll("#entries *")].map((e) => e.tagName.toLowerCase()))].sort(),
      boxes: page.querySelectorAll(".completion svg rect").length, words: page.body.innerText };
    const again = [...page.querySelectorAll(".body button")].find((button) => button.textContent.startsWith("Compare"));
    again.click();
    seen[name].compared = page.querySelectorAll(".entry").length;
    document.getElementById("seen").textContent = JSON.stringify(seen);
  };
  document.body.append(frame);
}
"""
MADE_BY_THE_PAGE = {
    *("article", "button", "span", "div", "p", "figure", "svg", "title", "image", "rect", "text", "figcaption"),
    *("section", "h4", "ul", "li", "pre", "table", "tr", "th", "td", "strong", "bdi"),
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What both frames show of a run whose completions are hostile."""
    if CHROMIUM is None:
        pytest.skip("no Chromium: install Debian's package `chromium`")
    folder = tmp_path_factory.mktemp("browser")
    make_shapes(folder / "shapes", train=2, val=0, test=2, questions=1, workers=1)
    texts = [[HOSTILE, completion(claim(HOSTILE), claim("red square"), answer=HOSTILE)], [completion(), "plain"]]
    config = small_config(folder / "shapes", folder / "</title><script>alert(1)<script>", "steps=2")
    with pytest.MonkeyPatch.context() as patches:
        run_dir = made_run(config, texts, patches)
    assert cli.main(["report", str(run_dir), "--out", str(folder / "page.html")]) == 0
    look = folder / "look.html"
    look.write_text(f"<!doctype html><title>look</title><body><pre id=seen></pre><script>{LOOK}</script>")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={folder / 'profile'}", "--window-size=1400,900", "--virtual-time-budget=20000"]
    done = subprocess.run([*command, "--dump-dom", look.as_uri()], capture_output=True, text=True, timeout=180)
    found = re.findall(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[0]))


@pytest.mark.parametrize("device", ["desktop", "phone"])
def test_hostile_text_stays_text(seen: dict[str, Any], device: str) -> None:
    shown = seen[device]
    assert shown["owned"] == "look"
    assert shown["title"].endswith("run report")
    assert set(shown["elements"]) <= MADE_BY_THE_PAGE
    expected = re.sub("[\u200b\u202e\u2028]", "\ufffd", HOSTILE)
    assert sum(expected in text for text in shown["texts"]) == 2
    assert "\u202e" not in shown["words"]
    assert "{{ 7 * 7 }}" in shown["words"]


def test_filters_keep_what_they_name_and_boxes_are_drawn(seen: dict[str, Any]) -> None:
    shown = seen["desktop"]
    assert shown["counts"] == {"all": 6, "heldout": 4, "before": 2, "spread": 2}
    assert shown["compared"] == 2, "a held-out clip before and after"
    assert shown["boxes"] > 0


@pytest.mark.parametrize("device", ["desktop", "phone"])
def test_nothing_is_wider_than_the_screen(seen: dict[str, Any], device: str) -> None:
    assert seen[device]["content"] <= seen[device]["width"]
