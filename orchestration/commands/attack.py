"""`ser calibrate --attacks`: what claims gain that are written to fool the referee (referee/trust/attacks)."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import numpy as np

from evidence.errors import RunFailed
from evidence.plain import dumps
from evidence.types import Sample
from orchestration.commands.ask_many import ask_many, phrases_of, readable
from orchestration.commands.calibrate import CalibrateConfig
from orchestration.supervision.standalone_referee import standalone_referee
from referee.trust.attacks import ABSENT_BAR, MEAN_BAR, P95_BAR, attack_report, bars_broken, make_attacks


def main(config: CalibrateConfig, as_json: bool) -> None:
    """Print what attacks gain. Raises RunFailed, after it, if a bar is broken, and BadInput."""
    samples = config.data.read()[: config.samples]
    report = asyncio.run(_attacked(config, samples))
    if as_json:
        print(dumps(report, places=4))
    else:
        from orchestration.commands.calibration_output import print_attacks

        print_attacks(report)
    broken = bars_broken(report["unrelated"])
    if broken:
        raise RunFailed(
            f"{config.model.referee.name} does not withstand the attacks (mean gain under {MEAN_BAR}, 95th percentile "
            f"under {P95_BAR}, absent object under {ABSENT_BAR}): {'; '.join(broken)}"
        )


async def _attacked(config: CalibrateConfig, samples: list[Sample]) -> dict[str, Any]:
    async with standalone_referee(config, [config.model.referee]) as standalone:
        counts: Counter[str] = Counter()
        clips = await readable(standalone, samples, counts)
        looked = [(clip.sample, clip.info) for clip in clips]
        phrases = phrases_of(samples)
        corpora = {
            name: make_attacks(looked, config.attacks, config.seed, phrases, loose=name == "too loose")
            for name in ("unrelated", "too loose")
        }
        claims = [
            (number, claim) for made in corpora.values() for number, one in made for claim in (one.claim, one.honest)
        ]
        answers = iter(await ask_many(standalone, clips, claims, standalone.verify))
        report: dict[str, Any] = {"referee": standalone.pools[0].digest}
    for name, made in corpora.items():
        pairs = [(one, next(answers)[0], next(answers)[0]) for _, one in made]
        whole = [(one, said, honest) for one, said, honest in pairs if said is not None and honest is not None]
        counts["without a verdict"] += len(pairs) - len(whole)
        if not whole:
            raise RunFailed("no attack got a verdict")
        scores, honest = (np.array([pair[k].relevance * pair[k].localization for pair in whole]) for k in (1, 2))
        report[name] = attack_report([one for one, _, _ in whole], scores, honest)
    return report | {"left_out": dict(counts)}
