"""Ratios right at their bound and beyond it: finite values, finite gradients, and a count."""

from __future__ import annotations

import math

import pytest
import torch

from learner.algorithm import KL, LOG_RATIO_BOUND, AlgorithmConfig, Correction, Proximal
from learner.losses import LossResult, PolicyOutput, TokenTargets, make_loss
from learner.losses.ratios import bounded_ratio

TOP = math.exp(LOG_RATIO_BOUND)
FAR = [LOG_RATIO_BOUND, LOG_RATIO_BOUND + 0.01, 89.0, 1000.0]


def trained(config: AlgorithmConfig, log_ratios: list[float], advantage: float) -> tuple[LossResult, list[float]]:
    """The loss of one completion of tokens with these log-ratios, in float32, and its gradient over the log-probs."""
    behaviour = torch.full((len(log_ratios),), -1024.0)  # sums with the log-ratios are exact
    logprobs = (behaviour + torch.tensor(log_ratios)).requires_grad_()
    targets = TokenTargets(
        torch.full_like(behaviour, 1 / len(log_ratios)),
        torch.full_like(behaviour, advantage),
        behaviour,
        torch.zeros(len(log_ratios), dtype=torch.long),
        behaviour,
    )
    result = make_loss(config)(PolicyOutput(logprobs), targets)
    (gradient,) = torch.autograd.grad(result.loss, logprobs)
    return result, gradient.tolist()


def test_a_ratio_is_exact_up_to_its_bound_and_constant_beyond_it() -> None:
    log_ratio = torch.tensor([-1000.0, -20.0, -19.5, 0.0, 19.5, 20.0, 20.5, 1000.0], requires_grad=True)
    ratio = bounded_ratio(log_ratio)
    expected = [math.exp(min(max(x, -20), 20)) for x in log_ratio.tolist()]
    assert ratio.value.tolist() == pytest.approx(expected, rel=1e-5)
    assert ratio.bounded.tolist() == [True, *[False] * 5, True, True]
    (gradient,) = torch.autograd.grad(ratio.value.sum(), log_ratio)
    assert gradient.tolist() == pytest.approx([0, *expected[1:6], 0, 0], rel=1e-5)


@pytest.mark.parametrize("loss", ["grpo", "gspo"])
@pytest.mark.parametrize("log_ratio", FAR)
def test_a_clipped_token_has_no_gradient_however_far_it_is(loss: str, log_ratio: float) -> None:
    result, gradient = trained(AlgorithmConfig(loss=loss), [log_ratio], 1.0)
    assert (result.loss.item(), gradient) == (pytest.approx(-1.2), [0])
    result, gradient = trained(AlgorithmConfig(loss=loss), [-log_ratio], -1.0)
    assert (result.loss.item(), gradient) == (pytest.approx(0.8), [0])
    assert result.metrics["bounded"] == (log_ratio > LOG_RATIO_BOUND)


@pytest.mark.parametrize("loss", ["grpo", "gspo"])
@pytest.mark.parametrize("log_ratio", FAR)
def test_the_unclipped_side_is_bounded(loss: str, log_ratio: float) -> None:
    result, gradient = trained(AlgorithmConfig(loss=loss), [log_ratio], -1.0)
    assert result.loss.item() == pytest.approx(TOP, rel=1e-5)
    assert gradient == [pytest.approx(TOP if log_ratio == LOG_RATIO_BOUND else 0, rel=1e-5)]
    assert result.metrics["clipped"] == 0


@pytest.mark.parametrize("log_ratio", FAR)
def test_cispo_keeps_the_gradient_of_its_clipped_weight(log_ratio: float) -> None:
    _, gradient = trained(AlgorithmConfig(loss="cispo"), [log_ratio, 0.0], 1.0)
    assert gradient == pytest.approx([-1.2 / 2, -1 / 2])


@pytest.mark.parametrize(
    ("correction", "factor"),
    [
        (Correction("plain", "sequence"), TOP),
        (Correction("truncate", "sequence"), 2.0),
        (Correction("mask", "sequence"), 0.0),
        (Correction("reject", "sequence"), 0.0),
        (Correction("plain", "token"), math.e),
    ],
)
def test_the_product_of_200_tokens_ratios_does_not_overflow(correction: Correction, factor: float) -> None:
    config = AlgorithmConfig(proximal=Proximal("recomputed"), correction=correction)
    result, gradient = trained(config, [1.0] * 200, 1.0)
    assert gradient == pytest.approx([-factor / 200] * 200, rel=1e-5)
    product_is_used = correction.level == "sequence" and correction.mode != "reject"
    assert result.metrics["bounded"] == pytest.approx(float(product_is_used))


@pytest.mark.parametrize("mode", ["plain", "truncate", "mask", "reject"])
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("loss", ["grpo", "reinforce"])
def test_no_correction_makes_nan(loss: str, level: str, mode: str) -> None:
    config = AlgorithmConfig(loss=loss, proximal=Proximal("recomputed"), correction=Correction(mode, level))
    for log_ratio in (*FAR, *(-x for x in FAR)):
        result, gradient = trained(config, [log_ratio, 0.0], 1.0)
        assert math.isfinite(result.loss.item()), log_ratio
        assert all(map(math.isfinite, (*gradient, *result.metrics.values()))), log_ratio


def test_the_kl_penalty_is_weighted_by_a_bounded_ratio() -> None:
    result, gradient = trained(AlgorithmConfig(kl=KL(0.1, "k2")), [100.0], 1.0)
    # k2 = 100^2 / 2, so its gradient is 100; the clipped objective has none.
    assert result.loss.item() == pytest.approx(-1.2 + 0.1 * TOP * 5000, rel=1e-5)
    assert gradient == [pytest.approx(0.1 * TOP * 100, rel=1e-5)]


def test_an_infinite_log_ratio_stays_visible() -> None:
    values = bounded_ratio(torch.tensor([torch.inf, -torch.inf, torch.nan])).value
    assert values[0] == torch.inf
    assert values[1] == 0
    assert values[2].isnan()
