"""`ser calibrate --attacks`: the gains of claims written to fool the referee (referee/trust/attacks)."""

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
from referee.trust.attacks import ABSENT_BAR, MEAN_BAR, P95_BAR, Attack, attack_report, broken_bars, make_attacks


def main(config: CalibrateConfig, as_json: bool) -> None:
    """Print the gains of attacks, then raise RunFailed if a bar is exceeded. Raises BadInput."""
    samples = config.data.read()[: config.samples]
    report = asyncio.run(_attacked(config, samples))
    if as_json:
        print(dumps(report, places=4))
    else:
        from orchestration.commands.calibration_output import print_attacks

        print_attacks(report)
    broken = broken_bars(report["unrelated"])
    if broken:
        raise RunFailed(
            f"{config.model.referee.name} does not withstand the attacks (mean gain under {MEAN_BAR}, 95th percentile "
            f"under {P95_BAR}, absent object under {ABSENT_BAR}): {'; '.join(broken)}"
        )


async def _attacked(config: CalibrateConfig, samples: list[Sample]) -> dict[str, Any]:
    async with standalone_referee(config, [config.model.referee]) as standalone:
        counts: Counter[str] = Counter()
        clips = await readable(standalone, samples, counts)
        decoded = [(clip.sample, clip.info) for clip in clips]
        phrases = phrases_of(samples)
        corpora = {
            name: make_attacks(decoded, config.attacks, config.seed, phrases, loose=name == "too loose")
            for name in ("unrelated", "too loose")
        }
        claims = [
            (clip, claim)
            for corpus in corpora.values()
            for clip, attack in corpus
            for claim in (attack.claim, attack.honest)
        ]
        answers = iter(await ask_many(standalone, clips, claims, standalone.verify))
        report: dict[str, Any] = {"referee": standalone.pools[0].digest}
    for name, corpus in corpora.items():
        attacks: list[Attack] = []
        scores: list[tuple[float, float]] = []  # of the attack and of its honest claim
        for _, attack in corpus:
            verdict, honest = next(answers)[0], next(answers)[0]
            if verdict is not None and honest is not None:
                attacks.append(attack)
                scores.append((verdict.relevance * verdict.localization, honest.relevance * honest.localization))
        counts["without a verdict"] += len(corpus) - len(attacks)
        if not attacks:
            raise RunFailed("no attack got a verdict")
        report[name] = attack_report(attacks, *np.array(scores).T)
    return report | {"left_out": dict(counts)}
