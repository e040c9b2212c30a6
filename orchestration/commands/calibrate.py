"""`ser calibrate`: how far a referee can be trusted, from labelled boxes, or from human ratings.

Guarantees: bad input is told before an engine starts; equal arguments ask the same claims; clips that cannot be read
and claims that got no verdict are left out and counted; nothing is written but into a new folder `out`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING

from evidence.config_checks import require, require_least
from evidence.errors import BadInput, RunFailed
from evidence.files import write_text
from evidence.geometry import convert
from evidence.plain import dumps
from evidence.spaces import read
from evidence.types import NORMALISED, Claim, FrameInfo, Sample
from orchestration.commands.ask_many import ReadableSample, ask_many, phrases_of, readable
from orchestration.config import to_yaml
from orchestration.preflight import require_folder
from orchestration.supervision.standalone_referee import StandaloneConfig, standalone_referee
from referee.reward.recorded import Recorded, read_completions
from referee.service.cache import Answer
from referee.service.sources import RefereeSource
from referee.trust.attacks import ROUND
from referee.trust.calibration import (
    Judged,
    Known,
    calibrate,
    known_by_box,
    known_by_raters,
    raters_agree,
    referees_agree,
)
from referee.trust.labelled_claims import LabelledClaim, label_claims, make_claims
from referee.trust.ratings import RatedClaim, read_ratings
from referee.trust.temperature import write_calibration
from referee.verification import KINDS
from rollout.dataset.mix import DataFile

# What the referees said of one claim, in their order: by kind, None without a verdict.
Answers = tuple[dict[str, Answer] | None, ...]
LEAST_CLIPS = 4  # two to fit on, two to report on


@dataclass(frozen=True)
class CalibrateConfig(StandaloneConfig):
    """data: a dataset with the samples that are judged. out: a new folder. samples: the first so many of the data.
    claims: made for each sample, where none are given. attacks: of `--attacks`, each on unrelated and on too loose
    boxes. resamples: of the bootstrap."""

    data: DataFile = MISSING
    out: str = ""
    samples: int = 250
    claims: int = 6
    attacks: int = 420
    resamples: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        require_least(self, 1, "samples", "claims", "resamples")
        require(self.attacks >= ROUND, "attacks", self.attacks, f"{ROUND} or more, one of each kind")
        require_least(self, 0, "seed")


@dataclass(frozen=True)
class Given:
    """What is asked about beside the data: at most one of the two is not None."""

    ratings: list[RatedClaim] | None = None
    completions: list[Recorded] | None = None


def main(
    config: CalibrateConfig, ratings: Path | None, completions: Path | None, second: str | None, as_json: bool
) -> None:
    """Write the report, the plots and calibration.json, and print the table or the JSON. Raises BadInput."""
    given = Given(
        None if ratings is None else read_ratings(ratings),
        None if completions is None else read_completions(completions),
    )
    named = [rated.sample for rated in given.ratings or ()] + [one.id for one in given.completions or ()]
    samples = _samples(config, named, ratings or completions)
    if not config.out:
        raise BadInput("out has no value; name a new folder with out=…")
    out = require_folder("out", config.out)
    if out.exists():
        raise BadInput(f"out = {config.out}: it is there already; name a new folder or remove it")
    other = RefereeSource(second) if second else config.model.second
    sources = [config.model.referee, *([other] if other else [])]
    report, temperature, digest = asyncio.run(_calibrated(config, sources, samples, given))
    from orchestration.commands.calibration_output import print_report, write_plots  # matplotlib takes a second

    out.mkdir(parents=True)
    (out / "config.yaml").write_text(to_yaml(config))
    write_calibration(out / "calibration.json", temperature, digest)
    write_text(out / "report.json", dumps(report, places=4, indent=1) + "\n")
    write_plots(report, out)
    if as_json:
        print(dumps(report, places=4))
    else:
        print_report(report, out)


def _samples(config: CalibrateConfig, named: Sequence[str], source: Path | None) -> list[Sample]:
    """The samples named, or the first of the data."""
    samples = config.data.read()
    if source is None:
        return samples[: config.samples]
    by_id = {sample.id: sample for sample in samples}
    unknown = next((name for name in named if name not in by_id), None)
    if unknown is not None:
        raise BadInput(f"{source}: sample {unknown!r} is not in {config.data.path}; give the dataset that it is from")
    return [by_id[name] for name in dict.fromkeys(named)]


async def _calibrated(
    config: CalibrateConfig, sources: list[RefereeSource], samples: list[Sample], given: Given
) -> tuple[dict[str, Any], dict[str, float], str]:
    async with standalone_referee(config, sources) as standalone:
        counts: Counter[str] = Counter()
        clips = await readable(standalone, samples, counts)
        asked = _claims(config, clips, given)
        paths = {clips[number].sample.media_path for number, _, _ in asked}
        if len(paths) < LEAST_CLIPS:
            raise BadInput(
                f"{config.data.path}: labelled claims about {len(paths)} clips; at least {LEAST_CLIPS} are needed, "
                "one half to fit on and one to report on"
            )
        answers = await ask_many(
            standalone, clips, [(number, claim) for number, claim, _ in asked], standalone.probabilities
        )
        digest = standalone.pools[0].digest
    whole = [i for i, said in enumerate(answers) if None not in said]
    counts["without a verdict"] = len(asked) - len(whole)
    if len({clips[asked[i][0]].sample.media_path for i in whole}) < LEAST_CLIPS:
        raise RunFailed(f"{counts['without a verdict']} of {len(asked)} claims got no verdict: too few are left")
    judged, *others = (_judged(clips, asked, answers, whole, referee) for referee in range(len(sources)))
    temperature, report = calibrate(judged, config.resamples, config.seed)
    report |= {"referee": digest, "left_out": dict(counts)}
    if given.ratings is not None:
        report["raters"] = raters_agree([rated.ratings for rated in given.ratings])
    if others:
        report["second"] = referees_agree(judged, others[0], config.resamples, config.seed)
    return report, temperature, digest


def _judged(
    clips: list[ReadableSample],
    asked: list[tuple[int, Claim, Known]],
    answers: list[Answers],
    whole: list[int],
    referee: int,
) -> Judged:
    said = [answers[i][referee] for i in whole]
    return Judged(
        clips=tuple(clips[asked[i][0]].sample.media_path for i in whole),
        known=tuple(asked[i][2] for i in whole),
        given={kind: np.array([one[kind] for one in said if one is not None], np.float64) for kind in KINDS},
    )


def _claims(config: CalibrateConfig, clips: list[ReadableSample], given: Given) -> list[tuple[int, Claim, Known]]:
    """(index of the clip, claim, what is known of it)."""
    if given.ratings is not None:
        return [
            (number, claim, known_by_raters(list(rated.ratings.values()), "rated"))
            for number, clip in enumerate(clips)
            for rated in given.ratings
            if rated.sample == clip.sample.id
            for claim in [_rated_claim(rated, clip.info)]
        ]
    phrases = phrases_of([clip.sample for clip in clips])
    labelled: list[tuple[int, LabelledClaim]] = []
    for number, (sample, info) in enumerate((clip.sample, clip.info) for clip in clips):
        if given.completions is not None:
            for recorded in given.completions:
                if recorded.id == sample.id:
                    claims = _recorded_claims(recorded, info, config.template.box_space)
                    labelled += [(number, one) for one in label_claims(sample, info, claims, "recorded")]
        else:
            rng = np.random.default_rng([config.seed, number])
            labelled += [(number, one) for one in make_claims(sample, info, rng, config.claims, phrases)]
    return [
        (
            number,
            one.claim,
            known_by_box(one.relevance, one.localization, one.asked_iou, one.named_iou, one.stratum),
        )
        for number, one in labelled
    ]


def _rated_claim(rated: RatedClaim, info: FrameInfo) -> Claim:
    return Claim(rated.phrase, convert(rated.box, NORMALISED, info.resized_space), rated.time, (0, 0))


def _recorded_claims(recorded: Recorded, info: FrameInfo, space: str) -> list[Claim]:
    """The claims in the text, boxes in pixels of the frames of the contract; they were written in `space`, on frames of
    the recorded size if it is known."""
    shown = replace(info, size=recorded.frame_size) if all(recorded.frame_size) else info
    return [
        replace(claim, box=convert(claim.box, shown.resized_space, info.resized_space))
        for claim in read(recorded.text, shown, space).claims
        if claim.valid and claim.box is not None
    ]
