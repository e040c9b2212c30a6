"""V-STaR's metrics from the scores of its samples, with the denominators of each mode. Pure.

- Over the whole file, Acc and the combined counts are shares of all samples; the means of the IoUs are over the
  answered ones. Within a length class or a domain all of them are over the answered samples. In `strict` mode every
  denominator is all samples.
- AM = (Acc + m_tIoU + m_vIoU) / 3; LGM = -(ln(1 - Acc) + ln(1 - m_tIoU) + ln(1 - m_vIoU)) / 3 of the means; mAM and
  mLGM are the means over the two chains. The official script raises an error for a mean of 1, whose logarithm has no
  value: here 1 - mean is at least SMALLEST.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from evaluation.measures import Key, Metrics, share
from evaluation.vstar.scoring import VstarScore

CHAIN_NAMES = ("chain1", "chain2")
R1_AT = (0.3, 0.5, 0.7)
AP_AT = (0.1, 0.3, 0.5, 0.7, 0.9)
TEMPORAL_RIGHT, SPATIAL_RIGHT = 0.3, 0.1  # least IoUs of a right time and place in the combined counts
COMBINED = ("vqa_temporal", "vqa_spatial", "temporal_spatial", "all")
SMALLEST = 1e-12
ALL, SCORED, ACC = 0, 1, 2  # columns before those of the chains
OF_CHAIN = 2 + len(R1_AT) + len(AP_AT) + len(COMBINED)


def record(score: VstarScore) -> dict[str, Any]:
    """One sample's scores as plain data: all that `columns` needs."""
    ious = [np.asarray(chain) for chain in score.ious]
    return {
        "id": str(score.sample.position),
        "video": score.sample.video,
        "domain": score.sample.domain,
        "length": score.sample.length,
        "scored": score.scored,
        "right": score.right,
        "rating": score.rating,
        "tiou": list(score.tiou),
        "viou": [float(chain.mean()) for chain in ious],
        "ap": [(chain[:, None] >= AP_AT).mean(axis=0).tolist() for chain in ious],
    }


def columns(records: Sequence[dict[str, Any]]) -> np.ndarray:
    """float [N, 3 + 2 * OF_CHAIN]: 1, whether scored, whether right, and for each chain tIoU, vIoU, the R1s, the APs
    and the combined counts."""
    scored = np.array([r["scored"] for r in records], float)
    right = np.array([r["right"] for r in records], float)
    parts = [np.ones(len(records)), scored, right]
    for chain in range(2):
        tiou = np.array([r["tiou"][chain] for r in records], float)
        viou = np.array([r["viou"][chain] for r in records], float)
        temporal, spatial = tiou >= TEMPORAL_RIGHT, viou >= SPATIAL_RIGHT
        combined = (right * temporal, right * spatial, temporal * spatial, right * temporal * spatial)
        parts += [tiou, viou, *(tiou >= least for least in R1_AT)]
        parts += [*np.array([r["ap"][chain] for r in records], float).reshape(-1, len(AP_AT)).T, *combined]
    return np.stack([np.asarray(part, float) for part in parts], axis=1)


def measures(mode: str, within_class: bool = False) -> Metrics:
    """The metrics over a whole file, or over the samples of a length class or a domain."""
    return partial(_metrics, strict=mode == "strict", within_class=within_class)


def _metrics(sums: np.ndarray, strict: bool, within_class: bool) -> dict[Key, np.ndarray]:
    scored = sums[..., ALL] if strict else sums[..., SCORED]
    asked = scored if within_class else sums[..., ALL]
    acc = share(sums[..., ACC], asked)
    metrics: dict[Key, np.ndarray] = {("acc",): acc}
    for n, chain in enumerate(CHAIN_NAMES):
        start = ACC + 1 + n * OF_CHAIN
        own = np.moveaxis(sums[..., start : start + OF_CHAIN], -1, 0)
        tiou, viou = share(own[0], scored), share(own[1], scored)
        metrics[chain, "m_tiou"], metrics[chain, "m_viou"] = tiou, viou
        metrics[chain, "am"] = (acc + tiou + viou) / 3
        metrics[chain, "lgm"] = -sum(np.log(np.maximum(1 - mean, SMALLEST)) for mean in (acc, tiou, viou)) / 3
        rest = iter(own[2:])
        metrics |= {(chain, "r1", str(at)): share(next(rest), scored) for at in R1_AT}
        metrics |= {(chain, "ap", str(at)): share(next(rest), scored) for at in AP_AT}
        metrics |= {(chain, "combined", name): share(next(rest), asked) for name in COMBINED}
    metrics["mam",] = (metrics["chain1", "am"] + metrics["chain2", "am"]) / 2
    metrics["mlgm",] = (metrics["chain1", "lgm"] + metrics["chain2", "lgm"]) / 2
    return metrics
