"""docs/images/evidence.png: two completions about one clip, their boxes on the frames, and the referee's verdicts.

Reads the samples.jsonl of a training run and draws, of the group whose rewards differ most, the best and the worst
completion. Each claim has one colour in the text, on the frame that it names, and in its verdict. Guarantees: nothing
is drawn that the run did not record; equal arguments give an equal picture.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evidence.drawing import CLAIM_COLOURS, WHITE, Colour, Marked, picture
from evidence.errors import BadInput
from evidence.geometry import nearest_frame
from evidence.grammar import parse
from evidence.lines import records
from evidence.types import FrameInfo, Sample
from orchestration.config import load_config
from orchestration.settings import TrainConfig
from referee.reward.ser import complete_claims
from rollout.frames.decoding import decode

ROOT = Path(__file__).parents[1]
FONTS = Path(matplotlib.get_data_path()) / "fonts/ttf"
WIDTH, GAP, LINE = 1640, 20, 40  # pixels; a page shows the picture at about half its width
FRAMES = 4  # shown of the clip: those that claims name, and others evenly spread
BOX_LINE = 6  # pixels
INK, GREY, PAPER = (32, 32, 32), (110, 110, 110), WHITE
WORDS = re.compile(r"<[^<\s]*\s*|[^<\s]+\s*|\s+")
Line = dict[str, Any]  # of samples.jsonl


def best_and_worst(lines: Iterable[Line]) -> tuple[Line, Line]:
    """Of the group whose rewards differ most, among completions whose claims all were judged. Raises BadInput."""
    groups: dict[tuple[int, int], list[Line]] = {}
    for line in lines:
        if line["claims"] and all(claim["flag"] is None for claim in line["claims"]):
            groups.setdefault((line["step"], line["group"]), []).append(line)
    pairs = [
        (max(group, key=lambda line: line["reward"]), min(group, key=lambda line: line["reward"]))
        for group in groups.values()
    ]
    if not pairs:
        raise BadInput("samples.jsonl holds no completion whose claims were judged; train for more steps")
    return max(pairs, key=lambda pair: pair[0]["reward"] - pair[1]["reward"])


def sample_of(config: TrainConfig, name: str) -> Sample:
    samples = (sample for file in config.data.train for sample in file.read())
    return next(sample for sample in samples if sample.id == name)


def shown_frames(times: tuple[float, ...], lines: Iterable[Line]) -> list[int]:
    """Indices of the frames to draw, in order: those that a claim names, filled up evenly to FRAMES."""
    shown = {nearest_frame(times, claim["time"]) for line in lines for claim in line["claims"]}
    for index in np.linspace(0, len(times) - 1, FRAMES).round().astype(int).tolist() + list(range(len(times))):
        if len(shown) >= FRAMES:
            break
        shown.add(index)
    return sorted(shown)


def coloured(line: Line) -> Iterator[tuple[str, Colour]]:
    """The completion's text in pieces, each with its colour."""
    text, position = line["text"], 0
    for claim, colour in zip(complete_claims(parse(text)), cycle(CLAIM_COLOURS)):
        start, end = claim.span
        yield text[position:start], INK
        yield text[start:end], colour
        position = end
    yield text[position:], INK


class Sheet:
    """A page that is filled from the top."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (WIDTH, 4000), PAPER)
        self.pen = ImageDraw.Draw(self.image)
        self.top = GAP

    def text(self, pieces: Iterable[tuple[str, Colour]], font: ImageFont.FreeTypeFont) -> None:
        """Pieces of text one after the other, broken before a word or a tag where the page ends."""
        x = float(GAP)
        for text, colour in pieces:
            for word in WORDS.findall(text):
                width = font.getlength(word)
                if x + width > WIDTH - GAP:
                    x, self.top = GAP, self.top + LINE
                self.pen.text((x, self.top), word, colour, font)
                x += width
        self.top += LINE

    def frames(self, frames: np.ndarray, info: FrameInfo, shown: list[int], line: Line) -> None:
        """The frames side by side, enlarged by a whole number, with their times and the boxes of the line's claims."""
        scale = (WIDTH - GAP) // len(shown) // info.size[0]
        side = (WIDTH - GAP) // len(shown)
        for column, index in enumerate(shown):
            marks = [
                Marked(claim["box"], colour)
                for claim, colour in zip(line["claims"], cycle(CLAIM_COLOURS))
                if nearest_frame(info.times, claim["time"]) == index
            ]
            image = picture(frames[index], marks, scale, BOX_LINE)
            left = GAP + column * side
            self.image.paste(Image.fromarray(image), (left, self.top))
            caption = (left, self.top + image.shape[0] + 4)
            self.pen.text(caption, f"{info.times[index]:.1f} s", GREY, font("DejaVuSans", 26))
        self.top += scale * info.size[1] + LINE + GAP

    def cropped(self) -> Image.Image:
        return self.image.crop((0, 0, WIDTH, self.top + GAP))


def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONTS / f"{name}.ttf", size)


def verdict(claim: Line) -> str:
    """The referee's verdict on a claim and what the claim earns."""
    return (
        f"{claim['phrase']} at {claim['time']:.1f} s:  relevance {claim['relevance']:.2f},  "
        f"localization {claim['localization']:.2f},  temporal penalty {claim['temporal_penalty']:.2f}"
        f"  →  score {claim['score']:.2f}"
    )


def draw(run_dir: Path) -> Image.Image:
    config = load_config(TrainConfig, run_dir / "config.yaml")
    pair = best_and_worst(list(records(run_dir / "samples.jsonl")))
    sample = sample_of(config, pair[0]["sample"])
    frames, info = decode(sample.media_path, config.contract)
    shown = shown_frames(info.times, pair)
    plain, bold, mono = font("DejaVuSans", 28), font("DejaVuSans-Bold", 28), font("DejaVuSansMono", 26)
    sheet = Sheet()
    sheet.text(
        [("Question: ", GREY), (sample.question, INK), ("   Reference answer: ", GREY), (sample.answer, INK)], plain
    )
    for line in pair:
        sheet.top += GAP
        terms = ",  ".join(f"{name} {value:.2f}" for name, value in line["terms"].items())
        sheet.text([(f"Reward {line['reward']:.2f}", INK), (f"    {terms}", GREY)], bold)
        sheet.top += GAP // 2
        sheet.frames(frames, info, shown, line)
        sheet.text(coloured(line), mono)
        sheet.top += GAP // 2
        for claim, colour in zip(line["claims"], cycle(CLAIM_COLOURS)):
            sheet.text([(verdict(claim), colour)], plain)
    return sheet.cropped()


def main() -> None:
    parser = argparse.ArgumentParser(description="A picture of a run's evidence, from its samples.jsonl.")
    parser.add_argument("run_dir", type=Path, help="a run of `ser train`, started in this folder")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images/evidence.png")
    args = parser.parse_args()
    draw(args.run_dir).save(args.out, optimize=True)
    print(args.out)


if __name__ == "__main__":
    main()
