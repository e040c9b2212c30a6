"""Quality of the embedded referee: AUROC on labelled held-out claims, overall and per stratum.

Guarantees: uses only transformers and torch, on one CPU thread, so that only the weights are measured; the claims come
from `referee.trust.labelled_claims.make_claims`, are about clips that no training saw, and depend only on the
arguments; the quotas that keep the test hard are measured on the boxes, and the command fails if one is not met.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AutoModelForImageTextToText

from benchmarks.strata import referee_report
from evidence.errors import BadInput
from evidence.geometry import convert, nearest_frame
from evidence.sampling import SamplingContract
from evidence.types import NORMALISED, Box, Claim, FrameInfo, Prompt, Sample
from learner.model.patches import Patcher
from orchestration.config import load_config
from referee.trust.labelled_claims import LabelledClaim, asked_phrase, best_iou, make_claims
from referee.verification import KINDS, SCALE, VerificationConfig, images, parts, read_scale
from rollout.dataset import read_dataset
from rollout.frames.decoding import decode
from rollout.prompt import ChatEncoder
from rollout.template import PromptTemplate

ROOT = Path(__file__).parents[1]
TIGHT = 0.7  # least IoU of a tight box, as in the labels


@dataclass
class World:
    """Sampling, prompt template and verification of the embedded world: configs/world/shapes.yaml."""

    contract: SamplingContract = field(default_factory=SamplingContract)
    template: PromptTemplate = field(default_factory=PromptTemplate)
    verification: VerificationConfig = field(default_factory=VerificationConfig)


class Look(NamedTuple):
    """A claim to verify. frame: uint8 [H, W, 3], the frame at `claim.time`."""

    question: str
    claim: Claim
    frame: np.ndarray


@dataclass(frozen=True)
class Case:
    """A labelled claim. frame: uint8 [H, W, 3], the frame it is about. other_iou: best IoU of its box with any visible
    object other than the asked one."""

    labelled: LabelledClaim
    frame: np.ndarray
    other_iou: float

    @property
    def look(self) -> Look:
        return Look(self.labelled.question, self.labelled.claim, self.frame)


def load_world() -> World:
    return load_config(World, ROOT / "configs/world/shapes.yaml")


def make_cases(dataset: Path, clips: int, per_clip: int, seed: int, world: World) -> list[Case]:
    """Up to `per_clip` claims about each of the first `clips` samples."""
    samples = read_dataset(dataset)[:clips]
    phrases = sorted({phrase for s in samples for items in s.key_items.values() for phrase in items})
    rng = np.random.default_rng(seed)
    cases = []
    for sample in samples:
        frames, info = decode(sample.media_path, world.contract)
        for labelled in make_claims(sample, info, rng, per_clip, phrases):
            claim = labelled.claim
            visible = visible_boxes(sample, claim.time, info)
            others = [box for phrase, boxes in visible.items() if phrase != asked_phrase(sample) for box in boxes]
            cases.append(
                Case(
                    labelled,
                    frames[nearest_frame(info.times, claim.time)],
                    other_iou=best_iou(claim.box, others),
                )
            )
    return cases


def visible_boxes(sample: Sample, time: float, info: FrameInfo) -> dict[str, list[Box]]:
    """phrase -> boxes at the labelled frame nearest to `time`, in pixels of the resized frame."""
    key = sample.key_frames[nearest_frame([k.time for k in sample.key_frames], time)]
    items = sample.key_items.get(key.idx, {})
    return {p: [convert(box, NORMALISED, info.resized_space) for box in boxes] for p, boxes in items.items()}


class PlainReferee:
    """The referee's weights, run by transformers' forward."""

    def __init__(self, folder: Path, verification: VerificationConfig):
        self.encoder, self.patcher = ChatEncoder(folder), Patcher.of_model(folder)
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        self.scale = [self.encoder.tokenizer(text)["input_ids"][0] for text in SCALE]
        self.verification = verification

    def judge(self, looks: Sequence[Look]) -> dict[str, np.ndarray]:
        """kind -> readings in [0, 1], float [N]."""
        reading = self.verification.reading
        probabilities = self.probabilities(looks)
        return {kind: np.array([read_scale(row, reading) for row in probabilities[kind]]) for kind in KINDS}

    def probabilities(self, looks: Sequence[Look], batch: int = 64) -> dict[str, np.ndarray]:
        """kind -> probabilities of the scale's tokens, float64 [N, 3]."""
        starts = range(0, len(looks), batch)
        return {kind: np.concatenate([self._ask(kind, looks[at : at + batch]) for at in starts]) for kind in KINDS}

    @torch.no_grad()
    def _ask(self, kind: str, looks: Sequence[Look]) -> np.ndarray:
        prompts, pictures = [], []
        for question, claim, frame in looks:
            size = (frame.shape[1], frame.shape[0])
            turn = parts(kind, question, claim.phrase, claim.time, size, self.verification)
            prompts.append(self.encoder.encode(turn))
            pictures += images(frame, claim.box, self.verification)
        logits = self.model(
            **padded(prompts),
            pixel_values=self.patcher.patches([image[None] for image in pictures], [1] * len(pictures)),
            image_grid_thw=torch.from_numpy(np.concatenate([prompt.grids for prompt in prompts]).astype(np.int64)),
            logits_to_keep=1,
        ).logits[:, -1, self.scale]
        return logits.softmax(-1).double().numpy()


def padded(prompts: list[Prompt]) -> dict[str, torch.Tensor]:
    """Prompts padded on the left, so that the last column predicts every verdict."""
    length = max(len(prompt.token_ids) for prompt in prompts)
    ids = np.zeros((len(prompts), length), np.int64)
    mask = np.zeros_like(ids)
    positions = np.zeros((3, len(prompts), length), np.int64)
    for row, prompt in enumerate(prompts):
        start = length - len(prompt.token_ids)
        ids[row, start:], mask[row, start:], positions[:, row, start:] = prompt.token_ids, 1, prompt.positions
    tensors = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    return {name: torch.from_numpy(array) for name, array in tensors.items()}


def quotas(cases: list[Case]) -> dict[str, float]:
    """Shares that keep the test hard; `QUOTAS` holds the least value of each."""
    irrelevant = [case for case in cases if case.labelled.relevance == 0]
    loose = [case for case in cases if case.labelled.localization == 0]
    tight = [case for case in cases if case.labelled.localization == 2]
    return {
        "relevance negatives that tightly hold another visible object": _share(
            [c.other_iou >= TIGHT for c in irrelevant]
        ),
        "localization negatives of IoU .2-.5": _share([0.2 <= c.labelled.named_iou < 0.5 for c in loose]),
        "localization positives jittered to IoU .7 or more": _share(
            [c.labelled.stratum == "jittered" and c.labelled.named_iou >= TIGHT for c in tight]
        ),
    }


# Least values of `quotas`. The third only requires a substantial number of jittered positives.
QUOTAS = (0.5, 0.5, 0.2)


def _share(holds: list[bool]) -> float:
    return round(float(np.mean(holds)), 4) if holds else 0.0


def stratum(case: Case) -> str:
    """The stratum of the claim, with a wrong name divided by the word that is wrong."""
    labelled = case.labelled
    if labelled.stratum != "wrong name":
        return labelled.stratum
    return "wrong name: form" if labelled.claim.phrase.split()[0] in labelled.question else "wrong name: colour"


def quality(cases: list[Case], readings: dict[str, np.ndarray]) -> dict[str, Any]:
    """The report: one `referee_report` per kind, the quotas, and the mean product of both readings per stratum."""
    strata = np.array([stratum(case) for case in cases])
    product = readings["relevance"] * readings["localization"]
    return {
        "claims": len(cases),
        "quotas": quotas(cases),
        **{k: referee_report([getattr(c.labelled, k) for c in cases], readings[k], strata) for k in KINDS},
        "product": {name: round(float(product[strata == name].mean()), 4) for name in sorted(set(strata))},
    }


def markdown(report: dict[str, Any]) -> str:
    """A table of the strata with, for each kind, the mean reading and the AUROC of its positives against all negatives
    (+) and of its negatives against all positives (-)."""
    lines = [
        "| claims made as | n | relevance | AUROC | localization | AUROC | product |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in report["product"]:
        cells = [name, str(report[KINDS[0]]["strata"][name]["n"])]
        for kind in KINDS:
            row = report[kind]["strata"][name]
            aurocs = ((sign, row[f"auroc_{side}"]) for sign, side in (("+", "positives"), ("-", "negatives")))
            cells += [f"{row['mean_score']:.3f}", ", ".join(f"{s} {v:.3f}" for s, v in aurocs if v is not None)]
        lines.append(f"| {' | '.join(cells)} | {report['product'][name]:.3f} |")
    relevance, localization = (f"{report[kind]['auroc']:.3f}" for kind in KINDS)
    lines.append(f"| **all** | {report['claims']} | | **{relevance}** | | **{localization}** | |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="The embedded referee's AUROC on held-out claims.")
    parser.add_argument("--referee", type=Path, default=ROOT / "assets/referee")
    parser.add_argument("--dataset", type=Path, default=ROOT / "data/shapes-sft/test.json")
    parser.add_argument("--clips", type=int, default=250)
    parser.add_argument("--per-clip", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    world = load_world()
    cases = make_cases(args.dataset, args.clips, args.per_clip, args.seed, world)
    report = quality(cases, PlainReferee(args.referee, world.verification).judge([case.look for case in cases]))
    report |= {"clips": args.clips, "seed": args.seed, "seconds": round(time.monotonic() - started, 1)}
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        print(markdown(report) + "\n")
        for (name, share), least in zip(report["quotas"].items(), QUOTAS):
            print(f"{name}: {share:.1%} (at least {least:.0%})")
        print(f"{len(cases)} claims about {args.clips} clips, seed {args.seed}, {report['seconds']} s")
    broken = [name for (name, share), least in zip(report["quotas"].items(), QUOTAS) if share < least]
    if broken:
        sys.exit(f"asset_quality: too few {'; '.join(broken)}")


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        print(f"asset_quality: {error}", file=sys.stderr)
        sys.exit(2)
