"""Draws docs/images/shapes.png: clips of the embedded world as the policy sees them, with question, answer and boxes.

Guarantees: the same arguments give the same clips and the same picture. The asked shape's box is magenta, those of
other visible shapes are white; the frame at the asked moment has a black border.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evidence.drawing import MAGENTA, draw_box
from evidence.geometry import convert
from evidence.sampling import SamplingContract
from evidence.types import NORMALISED, BoxSpace, Sample
from referee.trust.labelled_claims import asked_phrase
from rollout.dataset import read_dataset
from rollout.dataset.shapes import FRAME_SIDE, MOMENTS, make_shapes
from rollout.frames.decoding import decode

ROOT = Path(__file__).parents[1]
CONTRACT = SamplingContract(frames=MOMENTS, max_pixels=FRAME_SIDE**2, min_pixels=FRAME_SIDE**2, multiple=FRAME_SIDE)
SCALE = 2  # each pixel of the policy's frame becomes 2 x 2, so that the policy's resolution is visible
GAP, CAPTION = 6, 20
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def strip(sample: Sample) -> Image.Image:
    """The sample's frames side by side below its question and answer."""
    frames, info = decode(sample.media_path, CONTRACT)
    asked = asked_phrase(sample)
    side = FRAME_SIDE * SCALE
    sheet = Image.new("RGB", (len(frames) * (side + GAP) + GAP, CAPTION + side + 2 * GAP), WHITE)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    pen.text((GAP, 3), f"{sample.question}  {sample.answer}", BLACK, font)
    for at, (frame, key) in enumerate(zip(frames, sample.key_frames)):
        image = np.kron(frame, np.ones((SCALE, SCALE, 1), np.uint8))
        for phrase, boxes in sample.key_items.get(key.idx, {}).items():
            for box in boxes:
                enlarged = convert(box, NORMALISED, BoxSpace(side, side))
                image = draw_box(image, enlarged, MAGENTA if phrase == asked else WHITE)
        left, top = GAP + at * (side + GAP), CAPTION + GAP
        if f"at {info.times[at]:.1f} s" in sample.question:
            pen.rectangle((left - 3, top - 3, left + side + 2, top + side + 2), BLACK)
        sheet.paste(Image.fromarray(image), (left, top))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description="A picture of the embedded world.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images/shapes.png")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "shapes"
        make_shapes(data, train=0, val=0, test=args.clips, seed=args.seed, workers=1)
        strips = [strip(sample) for sample in read_dataset(data / "test.json")]
    sheet = Image.new("RGB", (strips[0].width, sum(image.height for image in strips)), WHITE)
    for row, image in enumerate(strips):
        sheet.paste(image, (0, row * image.height))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.out, optimize=True)
    print(args.out)


if __name__ == "__main__":
    main()
