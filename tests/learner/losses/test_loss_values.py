"""Value and gradient of each loss against a slow float64 reference, and clipping and corrections against numbers by
hand."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_reference import Completion, Logprobs, gradient, loss, random_step

from learner.aggregation import token_weights
from learner.algorithm import KL, AlgorithmConfig, Correction, Proximal
from learner.losses import LossResult, PolicyOutput, TokenTargets, cross_entropy, make_loss
from learner.losses.importance import correction

MAX_LENGTH = 7
HIGH, BOTH = {"high": 1.2}, {"low": 0.8, "high": 1.2}
BOUNDS = {"plain": {}, "truncate": HIGH, "mask": BOTH, "reject": BOTH}
CORRECTIONS = [Correction(mode, level, **by) for mode, by in BOUNDS.items() for level in ("token", "sequence")]
RECOMPUTED = Proximal("recomputed")
CORRECTED = [("grpo", RECOMPUTED), ("grpo", Proximal("interpolated", 0.3)), ("reinforce", RECOMPUTED)]
ALGORITHMS = {
    "grpo": AlgorithmConfig(),
    "clip-higher, token mean": AlgorithmConfig(clip_high=0.28, aggregate="token_mean"),
    "constant": AlgorithmConfig(aggregate="constant"),
    "gspo": AlgorithmConfig(loss="gspo", clip_low=0.1, clip_high=0.15),
    "gspo, token mean": AlgorithmConfig(loss="gspo", aggregate="token_mean"),
    "gspo, interpolated": AlgorithmConfig(
        loss="gspo",
        clip_low=0.05,
        clip_high=0.08,
        proximal=Proximal("interpolated", 0.7),
        correction=Correction("truncate", "sequence", high=1.2),
    ),
    "cispo": AlgorithmConfig(loss="cispo", clip_low=1.0, clip_high=0.3, aggregate="token_mean"),
    "reinforce": AlgorithmConfig(loss="reinforce"),
    "recomputed, uncorrected": AlgorithmConfig(proximal=RECOMPUTED),
    **{
        f"{loss}, {proximal.policy}, {c.mode} {c.level}": AlgorithmConfig(loss=loss, proximal=proximal, correction=c)
        for loss, proximal in CORRECTED
        for c in CORRECTIONS
    },
    "k2 in the loss": AlgorithmConfig(kl=KL(0.3, "k2")),
    "k3 in the loss": AlgorithmConfig(kl=KL(0.3, "k3")),
    "k3 in the reward": AlgorithmConfig(kl=KL(0.3, "k3", "reward")),
    "entropy": AlgorithmConfig(entropy=0.2),
}


def tensors(pi: Logprobs, step: list[Completion], config: AlgorithmConfig) -> tuple[PolicyOutput, TokenTargets]:
    lengths = np.array(list(map(len, pi)))

    def flat(values: Any) -> torch.Tensor:
        return torch.tensor(list(chain(*values)), dtype=torch.float64)

    return PolicyOutput(flat(pi).requires_grad_(), flat(c.entropy for c in step)), TokenTargets(
        weights=torch.from_numpy(token_weights(lengths, config.aggregate, MAX_LENGTH)).double(),
        advantages=flat([c.advantage] * len(c.mu) for c in step),
        behaviour=flat(c.mu for c in step),
        sequence=torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)),
        reference=flat(c.reference for c in step),
    )


def evaluated(config: AlgorithmConfig, output: PolicyOutput, targets: TokenTargets) -> tuple[LossResult, np.ndarray]:
    result = make_loss(config)(output, targets)
    (grad,) = torch.autograd.grad(result.loss, output.logprobs)
    return result, grad.numpy()


@pytest.mark.parametrize("spread", [0.0, 0.1, 0.6, 2.0], ids=lambda spread: f"off by {spread}")
@pytest.mark.parametrize("name", ALGORITHMS)
def test_values_and_gradients_match_the_reference(name: str, spread: float) -> None:
    config = ALGORITHMS[name]
    for seed in range(3):
        pi, step = random_step(seed, spread)
        result, grad = evaluated(config, *tensors(pi, step, config))
        # The weights are float32, everything else float64.
        assert result.loss.item() == pytest.approx(loss(pi, pi, step, config, MAX_LENGTH), rel=1e-6, abs=1e-7)
        np.testing.assert_allclose(grad, gradient(pi, step, config, MAX_LENGTH), rtol=1e-5, atol=1e-7)


def one_token_each(ratios: list[float], advantages: list[float], config: AlgorithmConfig) -> Any:
    step = [Completion([-1.0], [-1.0], a, [0.0]) for a in advantages]
    return evaluated(config, *tensors([[-1.0 + float(np.log(r))] for r in ratios], step, config))


@pytest.mark.parametrize("loss", ["grpo", "gspo"])
def test_clipping_only_stops_updates_that_leave_the_interval(loss: str) -> None:
    config = AlgorithmConfig(loss=loss, clip_low=0.2, clip_high=0.28)
    ratios, advantages = [1.3, 1.3, 0.7, 0.7, 1.25, 0.85], [1.0, -1.0, 1.0, -1.0, 1.0, -1.0]
    result, grad = one_token_each(ratios, advantages, config)
    assert result.loss.item() == pytest.approx(-(1.28 - 1.3 + 0.7 - 0.8 + 1.25 - 0.85) / 6, rel=1e-6)
    np.testing.assert_allclose(grad, [0, 1.3 / 6, -0.7 / 6, 0, -1.25 / 6, 0.85 / 6], rtol=1e-6)
    assert result.metrics["clipped"] == pytest.approx(2 / 6, rel=1e-6)


def test_cispo_bounds_the_weight_of_a_token_and_never_removes_its_gradient() -> None:
    config = AlgorithmConfig(loss="cispo", clip_low=0.5, clip_high=1.0)
    result, grad = one_token_each([4.0, 0.1, 1.5], [1.0, -1.0, 1.0], config)
    np.testing.assert_allclose(grad, [-2.0 / 3, 0.5 / 3, -1.5 / 3], rtol=1e-6)
    assert result.metrics["clipped"] == pytest.approx(2 / 3, rel=1e-6)


def test_gspo_and_grpo_agree_on_policy_and_differ_off_policy() -> None:
    # One token far more likely, one far less: the sequence is as likely as before, its two tokens are not.
    step = [Completion([-1.0, -1.0], [-1.0, -1.0], 1.0, [0.0, 0.0])]
    algorithms = AlgorithmConfig(), AlgorithmConfig(loss="gspo")
    grpo, gspo = (evaluated(config, *tensors([[-1.0, -1.0]], step, config)) for config in algorithms)
    assert grpo[0].loss.item() == pytest.approx(gspo[0].loss.item())
    np.testing.assert_allclose(grpo[1], gspo[1])
    grpo, gspo = (evaluated(config, *tensors([[-0.3, -1.7]], step, config)) for config in algorithms)
    assert grpo[0].loss.item() == pytest.approx(-(1.2 + np.exp(-0.7)) / 2)
    assert gspo[0].loss.item() == pytest.approx(-1)
    np.testing.assert_allclose(grpo[1], [0, -np.exp(-0.7) / 2], rtol=1e-6)  # the more likely token is clipped
    np.testing.assert_allclose(gspo[1], [-0.5, -0.5], rtol=1e-6)  # s = 1, both have the same gradient


def test_corrections_by_hand_and_the_tokens_they_leave_out() -> None:
    # pi / mu = 3 for a token of the first completion, 1 for all others.
    step = [Completion([-2.0, -1.0], [-1.0] * 2, 1.0, [0.0] * 2), Completion([-1.0], [-1.0], 1.0, [0.0])]
    pi = [[-2.0 + float(np.log(3)), -1.0], [-1.0]]
    cases = {
        ("mask", "token"): ([0, 1, 1], 1 / 4),
        ("mask", "sequence"): ([0, 0, 1], 1 / 2),
        ("truncate", "token"): ([2, 1, 1], 0),
        ("truncate", "sequence"): ([2, 2, 1], 0),
        ("reject", "token"): ([0, 0, 1], 1 / 2),
        ("reject", "sequence"): ([1, 1, 1], 0),  # the geometric mean is 3 ** .5
        ("plain", "sequence"): ([3, 3, 1], 0),
    }
    for (mode, level), (factors, left_out) in cases.items():
        config = AlgorithmConfig(proximal=RECOMPUTED, correction=Correction(mode, level, 0.5, 2.0))
        result, grad = evaluated(config, *tensors(pi, step, config))
        np.testing.assert_allclose(
            grad, -np.array(factors) * [1 / 4, 1 / 4, 1 / 2], rtol=1e-6, err_msg=f"{mode}, {level}"
        )
        assert result.metrics["left_out"] == pytest.approx(left_out, abs=1e-7)
        if mode == "truncate":
            assert result.metrics["truncated"] == pytest.approx(1 / 2 if level == "sequence" else 1 / 4, abs=1e-7)


@pytest.mark.parametrize("mode", ["mask", "reject"])
def test_a_weight_right_at_a_limit_is_kept(mode: str) -> None:
    logs = torch.tensor([0.5, 2.0], dtype=torch.float64).log()
    targets = TokenTargets(logs, logs, logs, torch.tensor([0, 1]))
    for nudge, factors in ((0.0, [0.5, 2.0]), (1e-9, [0, 0])):
        factor = correction(logs * (1 + nudge), targets, Correction(mode, "token", 0.5, 2.0)).value
        expected = factors if mode == "mask" else [float(f > 0) for f in factors]
        assert (factor.dtype, factor.tolist()) == (torch.float64, pytest.approx(expected))


def test_an_overflowing_correction_is_truncated_or_masked_without_nan() -> None:
    step = [Completion([-800.0, -800.0], [-1.0] * 2, 1.0, [0.0] * 2)]
    for mode, wanted in (("truncate", -2.0), ("mask", 0.0)):
        config = AlgorithmConfig(proximal=RECOMPUTED, correction=Correction(mode, "sequence"))
        _, grad = evaluated(config, *tensors([[-1.0, -1.0]], step, config))
        np.testing.assert_allclose(grad, [wanted / 2] * 2)


def test_truncated_reinforce_is_cispo_without_a_lower_bound() -> None:
    pi, step = random_step(1, 1.0)
    truncated = AlgorithmConfig(
        loss="reinforce", proximal=RECOMPUTED, correction=Correction("truncate", "token", high=1.5)
    )
    cispo = AlgorithmConfig(loss="cispo", clip_low=1.0, clip_high=0.5)
    (result, grad), (other, other_grad) = (evaluated(c, *tensors(pi, step, c)) for c in (truncated, cispo))
    assert result.loss.item() == pytest.approx(other.loss.item())
    np.testing.assert_allclose(grad, other_grad)


def test_the_recomputed_policy_equals_a_separate_pass_before_the_step() -> None:
    """A batch is one optimizer step, so the forward of every micro-batch runs under the weights that a pass over the
    whole batch before the step would have used."""
    torch.manual_seed(0)
    pi, step = random_step(0, 0.0)
    config = AlgorithmConfig(proximal=RECOMPUTED, correction=Correction("plain", "token"))
    _, targets = tensors(pi, step, config)
    policy = torch.nn.Sequential(torch.nn.Embedding(len(targets.behaviour), 4), torch.nn.Linear(4, 9)).double()
    drawn = torch.arange(len(targets.behaviour))

    def logprobs(tokens: torch.Tensor) -> torch.Tensor:
        return policy(tokens).log_softmax(-1)[:, 3]

    with torch.no_grad():
        before = logprobs(drawn)
    u = (logprobs(drawn) - before).exp()
    surrogate = torch.minimum(u * targets.advantages, u.clamp(0.8, 1.2) * targets.advantages)
    whole = -(targets.weights * (before - targets.behaviour).exp() * surrogate).sum()
    wanted = torch.autograd.grad(whole, list(policy.parameters()))

    for part in (targets.sequence < 2, targets.sequence >= 2):  # two micro-batches, one step
        fields = (targets.weights, targets.advantages, targets.behaviour, targets.sequence)
        part_targets = TokenTargets(*(values[part] for values in fields))
        make_loss(config)(PolicyOutput(logprobs(drawn[part])), part_targets).loss.backward()
    for parameter, grad in zip(policy.parameters(), wanted):
        torch.testing.assert_close(parameter.grad, grad, rtol=1e-12, atol=1e-15)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(ALGORITHMS)), st.integers(0, 99), st.lists(st.integers(0, 5), min_size=5, max_size=5))
def test_ranks_and_micro_batches_do_not_change_the_step(name: str, seed: int, dealt: list[int]) -> None:
    """Completions dealt to up to three ranks of two micro-batches each: losses, metrics and gradients add up."""
    config = ALGORITHMS[name]
    pi, step = random_step(seed, 0.5)
    output, targets = tensors(pi, step, config)
    whole, wanted = evaluated(config, output, targets)
    grad, total, metrics = np.zeros_like(wanted), 0.0, dict.fromkeys(whole.metrics, 0.0)
    part_of = torch.tensor(dealt)[targets.sequence]
    for part in set(dealt):
        inside = part_of == part
        part_targets = TokenTargets(
            targets.weights[inside],
            targets.advantages[inside],
            targets.behaviour[inside],
            torch.unique(targets.sequence[inside], return_inverse=True)[1],
            targets.reference[inside],
        )
        part_output = PolicyOutput(output.logprobs.detach()[inside].requires_grad_(), output.entropy[inside])
        result, grad[inside.numpy()] = evaluated(config, part_output, part_targets)
        total += result.loss.item()
        metrics = {key: value + result.metrics[key] for key, value in metrics.items()}
    np.testing.assert_allclose(grad, wanted, rtol=1e-12, atol=1e-15)
    assert total == pytest.approx(whole.loss.item(), rel=1e-12, abs=1e-15)
    assert metrics == pytest.approx(whole.metrics, rel=1e-9, abs=1e-12)


def test_a_micro_batch_without_tokens_has_loss_0() -> None:
    nothing = torch.zeros(0)
    targets = TokenTargets(nothing, nothing, nothing, nothing.long())
    for name in ("gspo", "grpo, recomputed, reject sequence"):
        result = make_loss(ALGORITHMS[name])(PolicyOutput(nothing.clone().requires_grad_()), targets)
        assert result.loss.item() == 0
        result.loss.backward()


def test_metrics_are_averages_over_the_step() -> None:
    step = [Completion([-1.0, -1.0], [-1.5, -0.5], 1.0, [0.6, 0.2]), Completion([-2.0], [-2.0], -1.0, [1.0])]
    pi = [[-0.5, -1.0], [-2.0]]
    result, _ = evaluated(AlgorithmConfig(), *tensors(pi, step, AlgorithmConfig()))
    ratio = float(np.exp(0.5))
    assert result.metrics == pytest.approx(
        {
            "weight": 1,
            "ratio": ratio / 4 + 3 / 4,
            "ratio_squared": ratio**2 / 4 + 3 / 4,
            "clipped": 1 / 4,
            "bounded": 0,
            "behaviour_kl": (ratio - 1 - 0.5) / 4,
            "entropy": 0.6 / 4 + 0.2 / 4 + 1.0 / 2,
            "kl": (np.exp(-1.0) + 1.0 - 1) / 4 + (np.exp(0.5) - 0.5 - 1) / 4,
        },
        rel=1e-6,
    )
    output, targets = tensors(pi, step, AlgorithmConfig())
    sampled = make_loss(AlgorithmConfig())(PolicyOutput(output.logprobs), targets).metrics["entropy"]
    assert sampled == pytest.approx(0.5 / 4 + 1.0 / 4 + 2.0 / 2, rel=1e-6)


def test_the_entropy_bonus_pushes_the_entropy_up() -> None:
    config = AlgorithmConfig(entropy=0.2)
    output, targets = tensors(*random_step(0, 0.3), config)
    output = PolicyOutput(output.logprobs, output.entropy.requires_grad_())
    (grad,) = torch.autograd.grad(make_loss(config)(output, targets).loss, output.entropy)
    torch.testing.assert_close(grad, -0.2 * targets.weights)


def test_cross_entropy_weights_each_token_by_its_share_of_the_step() -> None:
    logprobs = torch.tensor([-1.0, -2.0, -6.0], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.5, 0.2, 0.1], dtype=torch.float64)  # the rest of the step is in another micro-batch
    result = cross_entropy(PolicyOutput(logprobs), TokenTargets(weights, weights, weights, torch.tensor([0, 1, 1])))
    assert result.loss.item() == pytest.approx(1.5)
    assert result.metrics == {"cross_entropy": result.loss.item()}
    result.loss.backward()
    torch.testing.assert_close(logprobs.grad, -weights)
    assert make_loss(None) is cross_entropy


def test_missing_inputs_of_a_loss_are_an_error() -> None:
    output, targets = tensors(*random_step(0, 0.1), AlgorithmConfig())
    without = TokenTargets(targets.weights, targets.advantages, targets.behaviour, targets.sequence)
    for where in ("loss", "reward"):
        with pytest.raises(ValueError, match="no reference log-probs"):
            make_loss(AlgorithmConfig(kl=KL(0.1, "k3", where)))(output, without)
    with pytest.raises(ValueError, match="did not compute its entropy"):
        make_loss(AlgorithmConfig(entropy=0.1))(PolicyOutput(output.logprobs), targets)
