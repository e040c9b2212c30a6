"""Draws docs/images/packing.png: the attention mask of a packed group in each mode, from the learner's plan and mask.

Guarantees: rows and masks come from `learner.packing.step.lay_out` and `learner.model.attention.mask_mod`; the same
arguments give the same picture.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from torch.nn.attention.flex_attention import create_mask

from learner.model.attention import mask_mod
from learner.packing.shared_prefix import Branch, Unit
from learner.packing.step import lay_out
from learner.settings import PACKING_MODES, PackingConfig

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

ROOT = Path(__file__).parents[1]
PROMPT, COMPLETIONS = 8, (5, 2, 4)  # tokens
# Masked; the prompt attends to itself; completions attend to the prompt; completions attend to themselves; padding.
COLOURS = ("#eeeeec", "#4c6a8f", "#a9bdd6", "#d98b3a", "#d9b8b8")
GAP = 1  # between the rows of a forward, in tokens
TITLES = {
    "none": "none: a row each",
    "sequence": "sequence: end to end",
    "prefix": "prefix: the prompt once",
}


def unit(prompt: int, completions: Sequence[int]) -> Unit:
    """A prompt and completions of these lengths; nothing else matters here."""

    def tokens(n: int) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(n, np.int32), np.zeros((3, n), np.int32)

    # One more target than tokens run, because the last token of a completion predicts nothing.
    branches = tuple(Branch(*tokens(n), np.zeros(n + 1, np.int32)) for n in completions)
    return Unit(*tokens(prompt), (), branches)


@dataclass(frozen=True)
class Picture:
    """One row of tokens. seen: [T, T], index into COLOURS for each query (line) and key (column). completions: number
    in the group, from 1, -> (first token, end) of each completion in the row."""

    seen: np.ndarray
    completions: dict[int, tuple[int, int]]


def rows_of_group(mode: str) -> list[Picture]:
    """All rows that hold the group."""
    ((layout,),) = lay_out([unit(PROMPT, COMPLETIONS)], 1, PackingConfig(mode))
    batch = layout.batch
    rows, length = batch.branch.shape
    rule = mask_mod(torch.from_numpy(batch.segment), torch.from_numpy(batch.branch))
    seen = create_mask(rule, rows, 1, length, length, device="cpu")[:, 0].numpy()
    # The last token that is run for a completion predicts its last target, and belongs to no other completion.
    last = np.cumsum([n + 1 for n in COMPLETIONS]) - 1
    ends = {int(batch.predict_from[batch.token == token][0]): number for number, token in enumerate(last, 1)}
    pictures = []
    for number, (mask, branch) in enumerate(zip(seen, batch.branch)):
        row = range(number * len(branch), (number + 1) * len(branch))
        stops = {ends[at]: at - row.start + 1 for at in ends if at in row}
        prompt_key, prompt_query = branch[None, :] == 0, branch[:, None] == 0
        picture = np.where(mask, np.where(prompt_key, np.where(prompt_query, 1, 2), 3), 0)
        padding = branch < 0
        picture[padding], picture[:, padding] = 4, 4
        completions = {k: (stop - COMPLETIONS[k - 1], stop) for k, stop in stops.items()}
        pictures.append(Picture(picture, completions))
    return pictures


def draw(axes: Axes, picture: Picture, left: float, top: float) -> None:
    """Draw the picture with its top left corner at (left, top); a token is 1 wide and high."""
    edges = np.arange(len(picture.seen) + 1)
    look = {"cmap": ListedColormap(COLOURS), "vmin": -0.5, "vmax": 4.5, "edgecolors": "#ffffff", "linewidth": 0.6}
    axes.pcolormesh(left + edges, top + edges, picture.seen, **look)
    for number, (first, stop) in picture.completions.items():
        at = {"va": "center", "fontsize": 10, "color": "#8a4f10"}
        axes.text(left + stop + 0.4, top + (first + stop) / 2, f"$c_{number}$", **at)


def main() -> None:
    parser = argparse.ArgumentParser(description="The mask of a group in the three modes of packing.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images/packing.png")
    args = parser.parse_args()
    figure, axes = plt.subplots(figsize=(10, 5.6), dpi=110)
    left = 0.0
    for mode in PACKING_MODES:
        rows = rows_of_group(mode)
        length = len(rows[0].seen)
        axes.text(left, -2.4, f"{TITLES[mode]}\n{len(rows) * length} tokens run", fontsize=11, va="bottom")
        axes.text(left, -0.4, "key token →", fontsize=9, va="bottom")
        axes.text(left - 0.4, 0, "← query token", fontsize=9, rotation=90, ha="right", va="top")
        for number, picture in enumerate(rows):
            draw(axes, picture, left, number * (length + GAP))
        left += length + 6 * GAP
    axes.set(xlim=(-2 * GAP, left), ylim=(43, -6), aspect="equal")
    axes.axis("off")
    names = {1: "the prompt sees itself", 2: "a completion sees the prompt", 3: "a completion sees itself"}
    names |= {0: "not seen", 4: "padding"}
    patches = [plt.Rectangle((0, 0), 1, 1, facecolor=COLOURS[n], edgecolor="#888888") for n in names]
    figure.legend(patches, names.values(), loc="lower center", ncols=5, frameon=False, fontsize=10)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.99, bottom=0.08)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out)
    print(args.out)


if __name__ == "__main__":
    main()
