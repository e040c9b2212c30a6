import numpy as np
import pytest

from evidence.errors import BadInput
from referee.trust.agreement import Agreement, AgreementConfig, AgreementWatch

CFG = AgreementConfig(window=5, least=20)


def claims(rng: np.random.Generator, mean_iou: float, noise: float, score: float) -> list[tuple[float, float]]:
    """20 claims: IoU around `mean_iou`, score around `score` and following IoU but for `noise`."""
    ious = np.clip(rng.normal(mean_iou, 0.15, 20), 0, 1)
    scores = np.clip(score + (ious - mean_iou) + rng.normal(0, noise, 20), 0, 1)
    return list(zip(scores.tolist(), ious.tolist()))


def run(phases: list[tuple[float, float, float]], cfg: AgreementConfig = CFG) -> list[Agreement]:
    """One window of steps a phase: (mean IoU, noise, mean score, which is the reward)."""
    rng, watch = np.random.default_rng(0), AgreementWatch(cfg)
    return [
        watch.step(claims(rng, iou, noise, score), score) for iou, noise, score in phases for _ in range(cfg.window)
    ]


def alarms(phases: list[tuple[float, float, float]]) -> list[bool]:
    return [one.alarm is not None for one in run(phases)]


def test_evidence_that_gets_better_sounds_no_alarm():
    assert not any(alarms([(0.3, 0.05, 0.2), (0.5, 0.05, 0.4), (0.7, 0.05, 0.6)]))


def test_a_reward_that_leaves_the_boxes_behind_sounds_it_within_a_window():
    heard = alarms([(0.4, 0.05, 0.3), (0.4, 0.05, 0.3), (0.38, 0.6, 0.6)])
    assert not any(heard[:10])
    assert heard[-1]


def test_a_correlation_that_falls_while_the_reward_does_not_rise_is_no_alarm():
    assert not any(alarms([(0.4, 0.05, 0.4), (0.4, 0.05, 0.4), (0.4, 0.6, 0.35)]))


def test_a_correlation_that_falls_since_all_claims_became_good_is_no_alarm():
    """IoU rises with the reward: what is left to correlate is noise."""
    heard = run([(0.4, 0.1, 0.4), (0.4, 0.1, 0.4), (0.85, 0.4, 0.8)])
    assert heard[9].correlation - heard[-1].correlation > CFG.fall
    assert heard[-1].alarm is None


def test_it_says_nothing_before_it_has_two_windows_or_enough_labels():
    assert not any(alarms([(0.4, 0.05, 0.3)]))
    few = AgreementConfig(window=5, least=101)
    assert all(one.alarm is None for one in run([(0.4, 0.05, 0.3), (0.38, 0.6, 0.6)], few))
    assert run([(0.4, 0.05, 0.3), (0.38, 0.6, 0.6)])[-1].alarm is not None


def test_the_figures_are_those_of_the_last_window():
    watch = AgreementWatch(AgreementConfig(window=2, least=1))
    watch.step([(0.9, 0.0)], 0.9)
    watch.step([(0.1, 0.1), (0.5, 0.5)], 0.3)
    last = watch.step([(0.2, 0.9)], 0.2)
    assert (last.claims, last.iou, last.reward) == (3, pytest.approx(0.5), pytest.approx(0.25))
    assert last.correlation == pytest.approx(0.5)
    assert last.metrics()["agreement/alarm"] == 0.0


def test_steps_without_labels_are_neither_good_nor_bad():
    watch = AgreementWatch(AgreementConfig(window=2, least=1))
    for _ in range(5):
        nothing = watch.step([], float("nan"))
    assert nothing.claims == 0
    assert np.isnan([nothing.correlation, nothing.iou, nothing.reward]).all()
    assert nothing.alarm is None


@pytest.mark.parametrize(("key", "value"), [("window", 0), ("least", 0), ("fall", -0.1), ("rise", float("nan"))])
def test_impossible_settings_are_refused_by_name(key: str, value):
    with pytest.raises(BadInput, match=f"^{key} = "):
        AgreementConfig(**{key: value})
