"""docs/images/packing.png: what a token of a packed group sees, in each mode, by the learner's own plan and mask.

Guarantees: rows and masks are those of `learner.micro.lay_out` and `learner.attention.mask_mod`; the same picture
for the same arguments.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from torch.nn.attention.flex_attention import create_mask

from learner.attention import mask_mod
from learner.micro import lay_out
from learner.packing.units import Branch, Unit
from learner.settings import PACKING_MODES, PackingConfig

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

ROOT = Path(__file__).parents[1]
PROMPT, COMPLETIONS = 8, (5, 2, 4)  # tokens
# Not seen; the prompt sees itself; completions see the prompt, and themselves; padding.
COLOURS = ("#eeeeec", "#4c6a8f", "#a9bdd6", "#d98b3a", "#d9b8b8")
GAP = 1  # between the rows of a forward, in tokens
TITLES = {
    "none": "none: a row each",
    "sequence": "sequence: end to end",
    "prefix": "prefix: the prompt once",
}


def unit(prompt: int, completions: Sequence[int]) -> Unit:
    """A prompt and completions of these lengths, which are all that matters."""

    def tokens(n: int) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(n, np.int32), np.zeros((3, n), np.int32)

    # One target more than is run: the last token of a completion predicts nothing.
    branches = tuple(Branch(*tokens(n), np.zeros(n + 1, np.int32)) for n in completions)
    return Unit(*tokens(prompt), (), branches)


def rows_of_group(mode: str) -> list[np.ndarray]:
    """Of each row that holds the group, [T, T] indices into COLOURS: what the query (row) sees of the key (column)."""
    ((layout,),) = lay_out([unit(PROMPT, COMPLETIONS)], 1, PackingConfig(mode))
    segment, branch = torch.from_numpy(layout.batch.segment), torch.from_numpy(layout.batch.branch)
    rows, length = segment.shape
    seen = create_mask(mask_mod(segment, branch), rows, 1, length, length, device="cpu")[:, 0].numpy()
    pictures = []
    for mask, own in zip(seen, layout.batch.branch):
        prompt_key, prompt_query = own[None, :] == 0, own[:, None] == 0
        picture = np.where(mask, np.where(prompt_key, np.where(prompt_query, 1, 2), 3), 0)
        padding = own < 0
        picture[padding], picture[:, padding] = 4, 4
        pictures.append(picture)
    return pictures


def draw(axes: Axes, picture: np.ndarray, left: float, top: float) -> None:
    """With its top left corner there; a token is 1 wide and high."""
    edges = np.arange(len(picture) + 1)
    look = {"cmap": ListedColormap(COLOURS), "vmin": -0.5, "vmax": 4.5, "edgecolors": "#ffffff", "linewidth": 0.6}
    axes.pcolormesh(left + edges, top + edges, picture, **look)


def main() -> None:
    parser = argparse.ArgumentParser(description="The mask of a group in the three modes of packing.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images/packing.png")
    args = parser.parse_args()
    figure, axes = plt.subplots(figsize=(10, 5.6), dpi=110)
    left = 0.0
    for mode in PACKING_MODES:
        rows = rows_of_group(mode)
        length = len(rows[0])
        axes.text(left, -1, f"{TITLES[mode]}\n{len(rows) * length} tokens run", fontsize=11, va="bottom")
        for number, picture in enumerate(rows):
            draw(axes, picture, left, number * (length + GAP))
        left += length + 6 * GAP
    axes.set(xlim=(-GAP, left), ylim=(43, -5), aspect="equal")
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
