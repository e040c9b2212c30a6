"""Calibration of a referee: its verdicts on claims compared with the claims' known labels. Pure.

A claim has two labels on the referee's scale, from boxes (referee/trust/labelled_claims) or from human raters. A third
verdict, `product`, is the quantity that SER pays: the product of the two readings. It is compared with the lesser of
the two labels.

Guarantees: the temperature is fitted on one half of the clips and all figures are reported on the other half, so no
figure is measured on the data that it was fitted to. A claim with a probability that is NaN or infinite enters no
figure and is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from evidence.errors import RunFailed
from referee.trust.statistics import auroc, bootstrap, calibration_error, kappa, reliability, spearman, threshold_table
from referee.trust.temperature import fit_temperature, log_loss
from referee.verification import KINDS, rescaled

VERDICTS = (*KINDS, "product")
# Claims with a grade of at least POSITIVE are positives, with at most NEGATIVE negatives: labels 2 and 0, or raters'
# means that round to them.
POSITIVE, NEGATIVE = 0.75, 0.25


@dataclass(frozen=True)
class KnownLabels:
    """The known labels of one claim.

    labels: kind -> float [3], the shares of labels 0, 1 and 2 (one-hot for a label from boxes).
    grade: verdict -> mean label divided by 2.
    truth: verdict -> the value in [0, 1] to compare its ranking with: the IoU with the labelled box, or the grade.
    stratum: how the claim was made.
    """

    labels: dict[str, np.ndarray]
    grade: dict[str, float]
    truth: dict[str, float]
    stratum: str


def known_by_box(relevance: int, localization: int, asked_iou: float, named_iou: float, stratum: str) -> KnownLabels:
    """A claim labelled by boxes. Relevance is ranked against the IoU with the asked object, localization against the
    IoU with the named object, the product against the lesser of the two."""
    levels = (relevance, localization)
    return KnownLabels(
        labels={kind: np.eye(3)[level] for kind, level in zip(KINDS, levels)},
        grade=dict(zip(VERDICTS, (level / 2 for level in (*levels, min(levels))))),
        truth=dict(zip(VERDICTS, (asked_iou, named_iou, min(asked_iou, named_iou)))),
        stratum=stratum,
    )


def known_by_raters(ratings: Sequence[tuple[int, int]], stratum: str) -> KnownLabels:
    """A claim rated by people: (relevance, localization) of each rater, 0-2."""
    levels = np.array([(rel, loc, min(rel, loc)) for rel, loc in ratings])
    grade = dict(zip(VERDICTS, (levels.mean(axis=0) / 2).tolist()))
    return KnownLabels(
        labels={kind: np.eye(3)[levels[:, place]].mean(axis=0) for place, kind in enumerate(KINDS)},
        grade=grade,
        truth=grade,
        stratum=stratum,
    )


@dataclass(frozen=True)
class JudgedClaims:
    """N claims that a referee has judged. `clips`: the clip of each; claims about one clip are not independent.
    `given`: kind -> probabilities of the scale's tokens, float [N, 3]."""

    clips: tuple[str, ...]
    known: tuple[KnownLabels, ...]
    given: dict[str, np.ndarray]

    def take(self, indices: np.ndarray) -> JudgedClaims:
        """The claims at `indices`, int [M]."""
        return JudgedClaims(
            tuple(self.clips[i] for i in indices),
            tuple(self.known[i] for i in indices),
            {kind: rows[indices] for kind, rows in self.given.items()},
        )

    @property
    def readable(self) -> np.ndarray:
        """bool [N]: whether all probabilities of a claim are finite, for both kinds."""
        return np.logical_and.reduce([np.isfinite(self.given[kind]).all(axis=1) for kind in KINDS])

    def labels(self, kind: str) -> np.ndarray:
        """The labels' shares as float [N, 3]."""
        return np.array([known.labels[kind] for known in self.known])

    def readings(self, temperature: dict[str, float]) -> dict[str, np.ndarray]:
        """verdict -> expected readings in [0, 1], float [N]."""
        read = {kind: rescaled(self.given[kind], temperature[kind]) @ np.arange(3) / 2 for kind in KINDS}
        return read | {"product": read["relevance"] * read["localization"]}


AS_GIVEN = dict.fromkeys(KINDS, 1.0)


def halves(clips: Sequence[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the claims about a random half of the clips, and of those about the other half."""
    names = sorted(set(clips))
    first = {names[k] for k in np.random.default_rng(seed).permutation(len(names))[: len(names) // 2]}
    of_first = np.array([clip in first for clip in clips], bool)
    return np.flatnonzero(of_first), np.flatnonzero(~of_first)


def calibrate(judged: JudgedClaims, resamples: int, seed: int) -> tuple[dict[str, float], dict[str, Any]]:
    """(kind -> temperature fitted on one half of the clips; the report on the other half, read at that temperature).

    Every interval is a 95% bootstrap interval over clips, [low, high]. `not_finite` is the number of claims left out
    because a probability is NaN or infinite. Raises RunFailed unless two or more clips have claims besides these.
    """
    readable = judged.readable
    judged = judged.take(np.flatnonzero(readable))
    if len(set(judged.clips)) < 2:
        raise RunFailed(
            f"{np.sum(~readable)} of {len(readable)} claims have readings that are not finite: too few are left"
        )
    fitted, rest = (judged.take(half) for half in halves(judged.clips, seed))
    temperature = {kind: fit_temperature(fitted.given[kind], fitted.labels(kind)) for kind in KINDS}
    before, after = rest.readings(AS_GIVEN), rest.readings(temperature)
    report: dict[str, Any] = {
        "not_finite": int(np.sum(~readable)),
        "fitted_on": _size(fitted),
        "reported_on": _size(rest),
        "temperature": temperature,
        "verdicts": {name: _verdict(rest, name, before[name], after[name], resamples, seed) for name in VERDICTS},
    }
    for kind in KINDS:
        given, labels = rest.given[kind], rest.labels(kind)
        report["verdicts"][kind]["log_loss"] = {
            "before": log_loss(given, labels),
            "after": log_loss(given, labels, temperature[kind]),
        }
    return temperature, report


def _size(judged: JudgedClaims) -> dict[str, int]:
    return {"claims": len(judged.clips), "clips": len(set(judged.clips))}


def _verdict(
    judged: JudgedClaims, name: str, before: np.ndarray, after: np.ndarray, resamples: int, seed: int
) -> dict[str, Any]:
    grade = np.array([known.grade[name] for known in judged.known])
    truth = np.array([known.truth[name] for known in judged.known])
    strata = np.array([known.stratum for known in judged.known])
    positive, negative = grade >= POSITIVE, grade <= NEGATIVE

    def with_interval(statistic: Any) -> dict[str, Any]:
        everything = np.arange(len(after))
        interval = bootstrap(judged.clips, statistic, resamples, seed)
        return {"value": statistic(everything), "interval": list(interval)}

    return {
        "positives": int(positive.sum()),
        "negatives": int(negative.sum()),
        "auroc": with_interval(lambda i: auroc(after[i][positive[i]], after[i][negative[i]])),
        "spearman": with_interval(lambda i: spearman(after[i], truth[i])),
        "ece": {
            "before": calibration_error(before, grade),
            **with_interval(lambda i: calibration_error(after[i], grade[i])),
        },
        "reliability": {
            "before": [asdict(group) for group in reliability(before, grade)],
            "after": [asdict(group) for group in reliability(after, grade)],
        },
        "thresholds": [asdict(cut) for cut in threshold_table(after, positive)],
        "strata": {
            stratum: {
                "n": int((members := strata == stratum).sum()),
                "grade": float(grade[members].mean()),
                "reading": float(after[members].mean()),
            }
            for stratum in sorted(set(strata))
        },
    }


def referees_agree(a: JudgedClaims, b: JudgedClaims, resamples: int, seed: int) -> dict[str, Any]:
    """Agreement of two referees on the same claims: kappa of the likeliest tokens (for the product: the lesser of the
    two), and Spearman correlation of the expected readings, each with its interval. `not_finite` is the number of
    claims left out because a probability of either is NaN or infinite."""
    readable = a.readable & b.readable
    a, b = (judged.take(np.flatnonzero(readable)) for judged in (a, b))
    levels = [_levels(judged) for judged in (a, b)]
    readings = [judged.readings(AS_GIVEN) for judged in (a, b)]

    def both(name: str, statistic: Any, values: Sequence[dict[str, np.ndarray]]) -> dict[str, Any]:
        left, right = (value[name] for value in values)
        interval = bootstrap(a.clips, lambda i: statistic(left[i], right[i]), resamples, seed)
        return {"value": statistic(left, right), "interval": list(interval)}

    return {
        name: {"kappa": both(name, kappa, levels), "spearman": both(name, spearman, readings)} for name in VERDICTS
    } | {"claims": len(a.clips), "not_finite": int(np.sum(~readable))}


def _levels(judged: JudgedClaims) -> dict[str, np.ndarray]:
    levels = {kind: judged.given[kind].argmax(axis=1) for kind in KINDS}
    return levels | {"product": np.minimum(levels["relevance"], levels["localization"])}


def raters_agree(ratings: Sequence[dict[str, tuple[int, int]]]) -> list[dict[str, Any]]:
    """Cohen's kappa of each pair of raters over the claims that both rated. `ratings`: per claim, rater ->
    (relevance, localization)."""
    raters = sorted({rater for claim in ratings for rater in claim})
    agreement = []
    for a, b in combinations(raters, 2):
        common = np.array([(claim[a], claim[b]) for claim in ratings if a in claim and b in claim]).reshape(-1, 2, 2)
        kappas = {kind: kappa(common[:, 0, place], common[:, 1, place]) for place, kind in enumerate(KINDS)}
        agreement.append({"raters": [a, b], "claims": len(common), "kappa": kappas})
    return agreement
