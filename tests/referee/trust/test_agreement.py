import numpy as np
import pytest

from evidence.errors import BadInput
from referee.trust.agreement import Agreement, AgreementConfig, AgreementWatch

CFG = AgreementConfig(window=5, least=20)


def claims(rng: np.random.Generator, mean_iou: float, noise: float, score: float) -> list[tuple[float, float]]:
    """20 claims with IoU around `mean_iou` and score around `score`, which follows IoU up to `noise`."""
    ious = np.clip(rng.normal(mean_iou, 0.15, 20), 0, 1)
    scores = np.clip(score + (ious - mean_iou) + rng.normal(0, noise, 20), 0, 1)
    return list(zip(scores.tolist(), ious.tolist()))


def run(phases: list[tuple[float, float, float]], cfg: AgreementConfig = CFG) -> list[Agreement]:
    """Results of one window of steps per phase; a phase is (mean IoU, noise, mean score, which is the reward)."""
    rng, watch = np.random.default_rng(0), AgreementWatch(cfg)
    return [
        watch.step(claims(rng, iou, noise, score), score) for iou, noise, score in phases for _ in range(cfg.window)
    ]


def alarms(phases: list[tuple[float, float, float]]) -> list[bool]:
    return [agreement.alarm is not None for agreement in run(phases)]


def test_improving_evidence_raises_no_alarm():
    assert not any(alarms([(0.3, 0.05, 0.2), (0.5, 0.05, 0.4), (0.7, 0.05, 0.6)]))


def test_a_reward_that_diverges_from_the_boxes_raises_an_alarm_within_a_window():
    raised = alarms([(0.4, 0.05, 0.3), (0.4, 0.05, 0.3), (0.38, 0.6, 0.6)])
    assert not any(raised[:10])
    assert raised[-1]


def test_a_falling_correlation_without_a_rising_reward_raises_no_alarm():
    assert not any(alarms([(0.4, 0.05, 0.4), (0.4, 0.05, 0.4), (0.4, 0.6, 0.35)]))


def test_a_correlation_that_falls_because_all_claims_became_good_raises_no_alarm():
    """IoU rises with the reward, and the remaining variation is noise."""
    agreements = run([(0.4, 0.1, 0.4), (0.4, 0.1, 0.4), (0.85, 0.4, 0.8)])
    assert agreements[9].correlation - agreements[-1].correlation > CFG.fall
    assert agreements[-1].alarm is None


def test_no_alarm_before_two_full_windows_or_without_enough_labels():
    assert not any(alarms([(0.4, 0.05, 0.3)]))
    demanding = AgreementConfig(window=5, least=101)
    agreements = run([(0.4, 0.05, 0.3), (0.38, 0.6, 0.6)], demanding)
    assert all(agreement.alarm is None for agreement in agreements)
    assert run([(0.4, 0.05, 0.3), (0.38, 0.6, 0.6)])[-1].alarm is not None


def test_figures_cover_the_last_window():
    watch = AgreementWatch(AgreementConfig(window=2, least=1))
    watch.step([(0.9, 0.0)], 0.9)
    watch.step([(0.1, 0.1), (0.5, 0.5)], 0.3)
    last = watch.step([(0.2, 0.9)], 0.2)
    assert (last.claims, last.iou, last.reward) == (3, pytest.approx(0.5), pytest.approx(0.25))
    assert last.correlation == pytest.approx(0.5)
    assert last.metrics() == {
        "agreement/claims": 3,
        "agreement/spearman": last.correlation,
        "agreement/iou": last.iou,
        "agreement/reward": last.reward,
        "agreement/alarm": 0.0,
    }


ORDERED, REVERSED = [(0.0, 0.0), (1.0, 1.0)], [(0.0, 1.0), (1.0, 0.0)]


@pytest.mark.parametrize(
    ("change", "alarm"),
    [
        ({}, True),
        ({"fall": 2.0}, False),  # the correlation falls from 1 to -1
        ({"fall": 1.99}, True),
        ({"rise": 0.25}, False),  # the reward rises from .5 to .75
        ({"rise": 0.24}, True),
        ({"iou_rise": 0.0}, False),  # IoU stays
        ({"least": 3}, False),  # each window has 2 claims
    ],
)
def test_every_threshold_must_be_passed(change: dict[str, float], alarm: bool):
    watch = AgreementWatch(AgreementConfig(**{"window": 1, "least": 2, **change}))
    watch.step(ORDERED, 0.5)
    assert (watch.step(REVERSED, 0.75).alarm is not None) == alarm


def test_a_window_that_is_not_full_raises_no_alarm():
    watch = AgreementWatch(AgreementConfig(window=2, least=2))
    watch.step(ORDERED, 0.5)
    assert [watch.step(REVERSED, 0.75).alarm for _ in range(2)] == [None, None]


@pytest.mark.filterwarnings("error")
def test_steps_without_labels_give_nan_and_no_alarm():
    watch = AgreementWatch(AgreementConfig(window=2, least=1))
    for _ in range(5):
        agreement = watch.step([], float("nan"))
    assert agreement.claims == 0
    assert np.isnan([agreement.correlation, agreement.iou, agreement.reward]).all()
    assert agreement.alarm is None


@pytest.mark.parametrize(
    ("key", "value"), [("window", 0), ("least", 0), ("fall", -0.1), ("rise", float("nan")), ("iou_rise", -1.0)]
)
def test_impossible_settings_are_refused_by_name(key: str, value):
    with pytest.raises(BadInput, match=f"^{key} = "):
        AgreementConfig(**{key: value})
