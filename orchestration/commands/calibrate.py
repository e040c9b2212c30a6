"""`ser calibrate`: how reliable a referee is, measured against labelled boxes or human ratings.

Guarantees: bad input is reported before an engine starts; equal arguments give the same claims; clips that cannot be
read and claims without a verdict are left out and counted; the only output is a new folder `out`, which appears whole.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING

from evidence.config_checks import MOST, MOST_SEED, require, require_least
from evidence.errors import BadInput, RunFailed
from evidence.files import whole_folder
from evidence.geometry import convert
from evidence.plain import dumps
from evidence.spaces import Written, read
from evidence.types import NORMALISED, Claim, FrameInfo, Sample
from orchestration.commands.ask_many import ReadableSample, ask_many, phrases_of, readable
from orchestration.commands.run_files import written
from orchestration.config import to_yaml
from orchestration.preflight import require_folder
from orchestration.supervision.standalone_referee import StandaloneConfig, standalone_referee
from referee.reward.recorded import RecordedCompletion, read_completions
from referee.service.cache import Answer
from referee.service.sources import RefereeSource
from referee.trust.attacks import ROUND
from referee.trust.calibration import (
    JudgedClaims,
    KnownLabels,
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

# The answers of each referee about one claim, by kind; None without a verdict.
Answers = tuple[dict[str, Answer] | None, ...]
MIN_CLIPS = 4  # two to fit on, two to report on


@dataclass(frozen=True)
class CalibrateConfig(StandaloneConfig):
    """data: the dataset. out: a new folder. samples: how many of the data's first samples are used. claims: how many
    are made for each sample if none are given. attacks: number for `--attacks`, each on unrelated and on too loose
    boxes. resamples: of the bootstrap. seed: of what is drawn."""

    data: DataFile = MISSING
    out: str = ""
    samples: int = 250
    claims: int = 6
    attacks: int = 420
    resamples: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        require_least(self, 1, "samples", "claims", "resamples")
        require(ROUND <= self.attacks <= MOST, "attacks", self.attacks, f"{ROUND} or more, one of each kind")
        require_least(self, 0, "seed", most=MOST_SEED)


@dataclass(frozen=True)
class Given:
    """Claims from a file instead of generated ones: ratings, or completions of a policy, or neither."""

    ratings: list[RatedClaim] | None = None
    completions: list[RecordedCompletion] | None = None
    policy: Written = field(default_factory=Written)


def main(
    config: CalibrateConfig, ratings: Path | None, completions: Path | None, second: str | None, as_json: bool
) -> None:
    """Write the report, the plots and calibration.json, and print the table or the JSON. Raises BadInput."""
    given = Given(
        None if ratings is None else read_ratings(ratings),
        None if completions is None else read_completions(completions),
        Written() if completions is None else written(config),
    )
    ids = [rated.sample for rated in given.ratings or ()] + [recorded.id for recorded in given.completions or ()]
    samples = _samples(config, ids, ratings or completions)
    out = _new_folder(config.out)
    other = RefereeSource(second) if second else config.model.second
    sources = [config.model.referee, *([other] if other else [])]
    report, temperature, digest = asyncio.run(_calibrated(config, sources, samples, given))
    from orchestration.commands.calibration_output import print_report, write_plots  # matplotlib takes a second

    with whole_folder(_new_folder(config.out)) as part:
        (part / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
        write_calibration(part / "calibration.json", temperature, digest)
        (part / "report.json").write_text(dumps(report, places=4, indent=1) + "\n", encoding="utf-8")
        write_plots(report, part)
    if as_json:
        print(dumps(report, places=4))
    else:
        print_report(report, out)


def _new_folder(name: str) -> Path:
    """The folder to write. Raises BadInput for one that exists."""
    if not name:
        raise BadInput("out has no value; name a new folder with out=…")
    out = require_folder("out", name)
    if out.exists():
        raise BadInput(f"out = {name}: already exists; name a new folder or remove it")
    return out


def _samples(config: CalibrateConfig, ids: Sequence[str], source: Path | None) -> list[Sample]:
    """The samples called `ids` by the file `source`; without a file, the first of the data."""
    samples = config.data.read()
    if source is None:
        return samples[: config.samples]
    by_id = {sample.id: sample for sample in samples}
    unknown = next((sample_id for sample_id in ids if sample_id not in by_id), None)
    if unknown is not None:
        raise BadInput(
            f"{source}: sample {unknown!r} is not in {config.data.path}; give the dataset that contains it, by data=…"
        )
    return [by_id[sample_id] for sample_id in dict.fromkeys(ids)]


async def _calibrated(
    config: CalibrateConfig, sources: list[RefereeSource], samples: list[Sample], given: Given
) -> tuple[dict[str, Any], dict[str, float], str]:
    async with standalone_referee(config, sources) as standalone:
        counts: Counter[str] = Counter()
        clips = await readable(standalone, samples, counts)
        claims = _claims(config, clips, given)
        paths = {clips[clip].sample.media_path for clip, _, _ in claims}
        if len(paths) < MIN_CLIPS:
            raise BadInput(
                f"{config.data.path}: labelled claims about {len(paths)} clips; at least {MIN_CLIPS} are needed, "
                "half to fit on and half to report on"
            )
        answers = await ask_many(
            standalone, clips, [(clip, claim) for clip, claim, _ in claims], standalone.probabilities
        )
        digest = standalone.pools[0].digest
    complete = [i for i, answer in enumerate(answers) if None not in answer]
    counts["without a verdict"] = len(claims) - len(complete)
    if len({clips[claims[i][0]].sample.media_path for i in complete}) < MIN_CLIPS:
        raise RunFailed(f"{counts['without a verdict']} of {len(claims)} claims got no verdict: too few are left")
    judged, *others = (_judged(clips, claims, answers, complete, referee) for referee in range(len(sources)))
    temperature, report = calibrate(judged, config.resamples, config.seed)
    report |= {"referee": digest, "left_out": dict(counts)}
    if given.ratings is not None:
        report["raters"] = raters_agree([rated.ratings for rated in given.ratings])
    if others:
        report["second"] = referees_agree(judged, others[0], config.resamples, config.seed)
    return report, temperature, digest


def _judged(
    clips: list[ReadableSample],
    claims: list[tuple[int, Claim, KnownLabels]],
    answers: list[Answers],
    complete: list[int],
    referee: int,
) -> JudgedClaims:
    """The judgements of one referee. `complete`: indices of the claims that every referee answered."""
    replies = [answers[i][referee] for i in complete]
    return JudgedClaims(
        clips=tuple(clips[claims[i][0]].sample.media_path for i in complete),
        known=tuple(claims[i][2] for i in complete),
        given={kind: np.array([reply[kind] for reply in replies if reply is not None], np.float64) for kind in KINDS},
    )


def _claims(config: CalibrateConfig, clips: list[ReadableSample], given: Given) -> list[tuple[int, Claim, KnownLabels]]:
    """(index of the clip, claim, its labels)."""
    if given.ratings is not None:
        return [
            (index, claim, known_by_raters(list(rated.ratings.values()), "rated"))
            for index, clip in enumerate(clips)
            for rated in given.ratings
            if rated.sample == clip.sample.id
            for claim in [_rated_claim(rated, clip.info)]
        ]
    phrases = phrases_of([clip.sample for clip in clips])
    labelled: list[tuple[int, LabelledClaim]] = []
    for index, (sample, info) in enumerate((clip.sample, clip.info) for clip in clips):
        if given.completions is not None:
            for recorded in given.completions:
                if recorded.id == sample.id:
                    claims = _recorded_claims(recorded, info, given.policy)
                    labelled += [(index, claim) for claim in label_claims(sample, info, claims, "recorded")]
        else:
            rng = np.random.default_rng([config.seed, index])
            labelled += [(index, claim) for claim in make_claims(sample, info, rng, config.claims, phrases)]
    return [(index, claim.claim, _known(claim)) for index, claim in labelled]


def _known(claim: LabelledClaim) -> KnownLabels:
    return known_by_box(claim.relevance, claim.localization, claim.asked_iou, claim.named_iou, claim.stratum)


def _rated_claim(rated: RatedClaim, info: FrameInfo) -> Claim:
    return Claim(rated.phrase, convert(rated.box, NORMALISED, info.resized_space), rated.time, (0, 0))


def _recorded_claims(recorded: RecordedCompletion, info: FrameInfo, policy: Written) -> list[Claim]:
    """The valid claims of the text, with boxes converted to pixels of the contract's frames. They were written in
    `policy.space`, on frames of the recorded size if it is known."""
    shown = replace(info, size=recorded.frame_size) if all(recorded.frame_size) else info
    return [
        replace(claim, box=convert(claim.box, shown.resized_space, info.resized_space))
        for claim in read(recorded.text, shown, policy.space, policy.printed(info)).claims
        if claim.valid and claim.box is not None
    ]
