"""docs/images/report.png: two parts of the report of `ser report`, its curves and its evidence, as Chromium shows them.

The report is shown in two frames of a page, each moved up to the section that it shows. Guarantee: nothing is drawn
that the report does not show.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from evidence.errors import RunFailed
from orchestration.cli import main as ser

OUT = Path(__file__).parents[1] / "docs/images/report.png"
WIDTH = 1280  # pixels of the browser's window
PARTS = {"curves": 405, "evidence": 1490}  # section: pixels of its height that are shown
SCALE, COLOURS = 0.75, 256  # of the picture, so that it is small
# Moves each frame up once its page has been laid out, so that its section is at the top.
MOVE = """
for (const frame of document.querySelectorAll("iframe")) frame.onload = () => {
  const section = frame.contentDocument.getElementById(frame.name);
  frame.style.marginTop = `-${section.getBoundingClientRect().top}px`;
};
"""


def wrapper(page: Path) -> str:
    frames = "".join(
        f"<div style='height:{height}px;overflow:hidden'>"
        f"<iframe name={section} src='{page.as_uri()}' style='width:{WIDTH}px;height:9000px;border:0'></iframe></div>"
        for section, height in PARTS.items()
    )
    return f"<!doctype html><body style='margin:0'>{frames}<script>{MOVE}</script></body>"


def screenshot(page: Path, folder: Path) -> Image.Image:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise RunFailed("no Chromium: install Debian's package `chromium`")
    (folder / "wrapper.html").write_text(wrapper(page), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files"]
    options += [f"--user-data-dir={folder / 'profile'}", f"--window-size={WIDTH},{sum(PARTS.values())}"]
    options += [f"--force-device-scale-factor={SCALE}", "--virtual-time-budget=20000"]
    picture = folder / "picture.png"
    command = [browser, *options, f"--screenshot={picture}", (folder / "wrapper.html").as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=180)
    return Image.open(io.BytesIO(picture.read_bytes())).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description="A picture of the report on training runs.")
    parser.add_argument("runs", nargs="+", help="runs of `ser train`, started in this folder")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        if code := ser(["report", *args.runs, "--out", str(page)]):
            raise SystemExit(code)
        picture = screenshot(page, Path(folder))
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(args.out, optimize=True)
    print(args.out)


if __name__ == "__main__":
    main()
