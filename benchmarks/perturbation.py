"""Measures the motivating claim of SER: how IoU and SER reward boxes that are off, and boxes or names of wrong objects.

Claims about the asked object of clips that no training saw, each with its true box and name, are perturbed: the box is
shifted, grown or shrunk by 0-50% of its sides; the right box gets another object's name; another object's box gets the
right name, or its own. IoU is with the asked object's true box, which is what Open-o3-Video's spatial reward pays for a
claim at the right time (its labels contain the objects that the answer is based on, and it does not read the name). SER
is relevance times localization by the embedded referee. JSON goes to stdout, the plot to --plot.

Guarantees: uses only transformers and torch, on one CPU thread; equal arguments give equal figures; every kind of
perturbation is measured on the same claims, swaps on those whose frame shows another object.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

from benchmarks.asset_quality import Look, PlainReferee, load_world
from evidence.errors import BadInput
from evidence.geometry import clip, nearest_frame
from evidence.types import Box, Claim, FrameInfo, Sample
from referee.trust.labelled_claims import asked_phrase, best_iou, moments_of
from referee.trust.statistics import bootstrap
from rollout.dataset import read_dataset
from rollout.frames.decoding import decode

matplotlib.use("agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
SHARES = tuple(round(0.05 * k, 2) for k in range(11))
WAYS = ("shifted", "grown", "shrunk")
RIGHT = "right box, right name"
SWAPS = (RIGHT, "right box, wrong name", "wrong box, right name", "wrong box, its own name")


def shifted(box: Box, share: float, angle: float) -> Box:
    """The box moved by `share` of its sides in the direction `angle`, in radians."""
    dx, dy = share * (box[2] - box[0]) * math.cos(angle), share * (box[3] - box[1]) * math.sin(angle)
    return box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy


def scaled(box: Box, factor: float) -> Box:
    """The box with both sides multiplied by `factor` and the same centre."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    w, h = (box[2] - box[0]) / 2 * factor, (box[3] - box[1]) / 2 * factor
    return x - w, y - h, x + w, y + h


def perturbed(
    sample: Sample, info: FrameInfo, phrases: list[str], rng: np.random.Generator
) -> list[tuple[tuple[str, float | str], Claim, float]]:
    """[((way, share) or ("swap", name), claim, IoU with the asked object)] of one sample, at a moment at which the
    asked object is visible, together with another one if there is such a moment. Empty if it is never visible."""
    asked = asked_phrase(sample)
    present = [moment for moment in moments_of(sample, info) if asked is not None and moment.items.get(asked)]
    if asked is None or not present:
        return []
    crowded = [moment for moment in present if len(moment.items) > 1] or present
    moment = crowded[int(rng.integers(len(crowded)))]
    truth, angle = moment.items[asked][0], rng.uniform(0, 2 * math.pi)
    boxes: list[tuple[tuple[str, float | str], Box, str]] = []
    for share in SHARES:
        boxes.append((("shifted", share), shifted(truth, share, angle), asked))
        boxes.append((("grown", share), scaled(truth, 1 + share), asked))
        boxes.append((("shrunk", share), scaled(truth, 1 - share), asked))
    others = sorted(phrase for phrase in moment.items if phrase != asked)
    if others:
        other = others[int(rng.integers(len(others)))]
        absent = [phrase for phrase in phrases if phrase not in moment.items]
        wrong = absent[int(rng.integers(len(absent)))]
        boxes += [
            (("swap", RIGHT), truth, asked),
            (("swap", SWAPS[1]), truth, wrong),
            (("swap", SWAPS[2]), moment.items[other][0], asked),
            (("swap", SWAPS[3]), moment.items[other][0], other),
        ]
    clipped = [(key, clip(box, info.size), phrase) for key, box, phrase in boxes]
    return [
        (key, Claim(phrase, box, moment.time, (0, 0)), best_iou(box, moment.items[asked]))
        for key, box, phrase in clipped
    ]


def measure(dataset: Path, clips: int, seed: int, referee: PlainReferee) -> dict[str, Any]:
    """The report: means of IoU and SER with their 95% intervals over clips, by way and share, and by swap."""
    world, rng = load_world(), np.random.default_rng(seed)
    samples = read_dataset(dataset)[:clips]
    phrases = sorted({phrase for s in samples for items in s.key_items.values() for phrase in items})
    keys: list[tuple[str, float | str]] = []
    looks: list[Look] = []
    ious: list[float] = []
    for sample in samples:
        frames, info = decode(sample.media_path, world.contract)
        for key, claim, overlap in perturbed(sample, info, phrases, rng):
            keys.append(key)
            looks.append(Look(sample.asked, claim, frames[nearest_frame(info.times, claim.time)]))
            ious.append(overlap)
    readings = referee.judge(looks)
    values = {"iou": np.array(ious), "ser": readings["relevance"] * readings["localization"], **readings}

    def row(key: tuple[str, float | str]) -> dict[str, Any]:
        selected = np.array([k == key for k in keys])
        cells: dict[str, Any] = {"n": int(selected.sum())}
        for name, all_values in values.items():
            chosen = all_values[selected]
            cells[name] = round(float(chosen.mean()), 4)
            interval = bootstrap(range(len(chosen)), lambda i, chosen=chosen: float(chosen[i].mean()), 500, seed)
            cells[f"{name}_95"] = [round(end, 4) for end in interval]
        return cells

    return {
        **{way: [{"by": share, **row((way, share))} for share in SHARES] for way in WAYS},
        "swaps": {swap: row(("swap", swap)) for swap in SWAPS},
        "clips": len(samples),
        "seed": seed,
    }


def draw(report: dict[str, Any], path: Path) -> None:
    colours = {"iou": "#ff7f0e", "ser": "#1f77b4"}
    labels = {"iou": "IoU", "ser": "SER (relevance x localization)"}
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.8), sharey=True, layout="constrained", width_ratios=[1, 1, 1, 1.3])
    for axis, way in zip(axes, WAYS):
        shares = [100 * row["by"] for row in report[way]]
        for name, colour in colours.items():
            low, high = zip(*(row[f"{name}_95"] for row in report[way]))
            axis.plot(shares, [row[name] for row in report[way]], "o-", color=colour, label=labels[name], markersize=4)
            axis.fill_between(shares, low, high, color=colour, alpha=0.2)
        axis.set(title=f"box {way}", xlabel="by % of its sides", ylim=(0, 1.03))
    places = np.arange(len(SWAPS))
    for offset, (name, colour) in zip((-0.2, 0.2), colours.items()):
        axes[3].bar(places + offset, [report["swaps"][swap][name] for swap in SWAPS], 0.4, color=colour)
    axes[3].set(title="swapped", xticks=places)
    axes[3].legend(*axes[0].get_legend_handles_labels(), loc="upper right")  # free of bars
    axes[3].set_xticklabels([swap.replace(", ", ",\n") for swap in SWAPS], fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="IoU and SER of perturbed claims.")
    parser.add_argument("--referee", type=Path, default=ROOT / "assets/referee")
    parser.add_argument("--dataset", type=Path, default=ROOT / "data/shapes-sft/test.json")
    parser.add_argument("--clips", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, default=ROOT / "docs/images/perturbation.png")
    args = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    report = measure(args.dataset, args.clips, args.seed, PlainReferee(args.referee, load_world().verification))
    draw(report, args.plot)
    print(json.dumps(report | {"seconds": round(time.monotonic() - started, 1)}, indent=1))


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        print(f"perturbation: {error}", file=sys.stderr)
        sys.exit(2)
