"""Settings of the algorithm: presets, allowed and refused combinations, the registry of names, and users' losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from evidence.errors import BadInput
from learner.advantages import PENALTIES
from learner.algorithm import ESTIMATORS, KL, MODES, RULES, AlgorithmConfig, Correction, Proximal
from learner.losses import PolicyOutput, TokenTargets, make_loss
from learner.losses.importance import CORRECTIONS
from learner.losses.kl import ESTIMATES
from learner.losses.objectives import OBJECTIVES
from orchestration.config import CONFIGS, load_config, to_yaml
from orchestration.settings import TrainConfig

QUICKSTART = CONFIGS / "experiment" / "quickstart.yaml"
NEEDED = ["data.train=a.json", "data.heldout=b.json", "model.policy=p", "model.referee=r", "run_dir=r"]
PRESETS = sorted(path.stem for path in (CONFIGS / "algorithm").glob("*.yaml"))
OWN = """
from learner.losses import LossResult

def mine(output, targets, options):
    loss = -options["scale"] * (targets.weights * targets.advantages * output.logprobs).sum()
    return LossResult(loss, {"scale": options["scale"]})

def short(output, targets):
    return None

def bare(output, targets, options):
    return -output.logprobs.sum()

def constant(output, targets, options):
    return LossResult(targets.weights.sum(), {})

number = 3
"""


def algorithm(*overrides: str) -> AlgorithmConfig:
    penalised = any(f"algorithm={name}" in overrides for name in WITH_KL_PENALTY)
    reference = f"learner.reference={'frozen' if penalised else 'none'}"
    return load_config(TrainConfig, QUICKSTART, [*NEEDED, reference, *overrides]).algorithm


# Presets that need a reference policy.
WITH_KL_PENALTY = ("open_o3", "rler")


def test_every_declared_name_has_a_function() -> None:
    assert RULES.keys() == OBJECTIVES.keys()
    assert MODES.keys() == CORRECTIONS.keys()
    assert set(ESTIMATORS) == ESTIMATES.keys() == PENALTIES.keys()


def test_the_default_is_the_preset_grpo() -> None:
    assert algorithm() == algorithm("algorithm=grpo") == AlgorithmConfig()


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_loads_and_survives_saving(name: str, tmp_path: Path) -> None:
    reference = "frozen" if name in WITH_KL_PENALTY else "none"
    overrides = [*NEEDED, f"algorithm={name}", f"learner.reference={reference}"]
    config = load_config(TrainConfig, QUICKSTART, overrides)
    make_loss(config.algorithm)
    (tmp_path / "saved.yaml").write_text(to_yaml(config))
    assert load_config(TrainConfig, tmp_path / "saved.yaml").algorithm == config.algorithm


def test_presets_match_their_papers() -> None:
    k3 = KL(0.04, "k3", "loss")
    assert algorithm("algorithm=open_o3") == AlgorithmConfig(loss="gspo", divide_by_std=True, kl=k3)
    assert algorithm("algorithm=rler") == AlgorithmConfig(divide_by_std=True, kl=k3)
    assert algorithm("algorithm=dapo") == AlgorithmConfig(
        aggregate="token_mean", clip_high=0.28, divide_by_std=True, dynamic_sampling=True
    )
    assert algorithm("algorithm=drgrpo") == AlgorithmConfig(aggregate="constant")
    assert algorithm("algorithm=gspo") == AlgorithmConfig(
        loss="gspo", clip_low=3e-4, clip_high=4e-4, divide_by_std=True
    )
    assert algorithm("algorithm=cispo") == AlgorithmConfig(
        loss="cispo", clip_low=1.0, clip_high=4.0, aggregate="token_mean", divide_by_std=True
    )
    assert algorithm("algorithm=aipo") == AlgorithmConfig(
        loss="reinforce",
        aggregate="token_mean",
        baseline="rloo",
        proximal=Proximal("recomputed"),
        correction=Correction("truncate", "token", high=8.0),
    )
    assert algorithm("algorithm=prime_rl") == AlgorithmConfig(
        loss="reinforce",
        aggregate="token_mean",
        proximal=Proximal("recomputed"),
        correction=Correction("mask", "token", low=1 / 8, high=8.0),
    )
    assert algorithm("algorithm=decoupled") == AlgorithmConfig(
        aggregate="token_mean",
        proximal=Proximal("recomputed"),
        correction=Correction("mask", "token", low=0.0, high=5.0),
    )


@pytest.mark.parametrize(
    ("preset", "ratios", "factors"),
    [
        ("aipo", [0.12, 0.125, 1.0, 8.0, 9.0], [0.12, 0.125, 1, 8, 8]),
        ("prime_rl", [0.12, 0.126, 1.0, 7.9, 9.0], [0, 0.126, 1, 7.9, 0]),
        ("decoupled", [1e-6, 0.12, 1.0, 4.9, 5.1], [1e-6, 0.12, 1, 4.9, 0]),
    ],
)
def test_presets_treat_tokens_of_an_older_policy_as_published(
    preset: str, ratios: list[float], factors: list[float]
) -> None:
    """With A = 1 the gradient of a token is minus its factor, over the number of tokens, those dropped included."""
    n = len(ratios)
    ones = torch.ones(n, dtype=torch.float64)
    targets = TokenTargets(ones / n, ones, -3 * ones, torch.zeros(n, dtype=torch.long))
    logprobs = (torch.tensor(ratios, dtype=torch.float64).log() - 3).requires_grad_()
    result = make_loss(algorithm(f"algorithm={preset}"))(PolicyOutput(logprobs), targets)
    result.loss.backward()
    assert (-n * logprobs.grad).tolist() == pytest.approx(factors, rel=1e-9)
    assert result.metrics["left_out"] == pytest.approx(factors.count(0) / n)


def test_preset_values_can_be_overridden_and_the_proximal_policy_has_a_short_form() -> None:
    config = algorithm("algorithm={recipe: decoupled, clip_high: 0.3, proximal: {policy: interpolated, alpha: 0.25}}")
    assert (config.aggregate, config.clip_high, config.proximal) == ("token_mean", 0.3, Proximal("interpolated", 0.25))
    assert algorithm("algorithm.proximal=recomputed").proximal == Proximal("recomputed")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"loss": "ppo"}, r"^loss = ppo: .*one of grpo, gspo, cispo, reinforce, or .*module:function"),
    ({"options": {"a": 1}}, r"^options = .*: .*empty: grpo takes none"),
    ({"clip_low": 0.0}, r"^clip_low = 0.0: .*above 0, and at most 1"),
    ({"clip_high": float("nan")}, r"^clip_high = nan: .*above 0, and finite"),
    ({"aggregate": "mean"}, r"^aggregate = mean: .*one of sequence_mean, token_mean, constant"),
    ({"max_length": 9}, r"^max_length = 9: .*null; only `constant` divides by it"),
    ({"max_length": 0, "aggregate": "constant"}, r"^max_length = 0: .*1 or more"),
    ({"baseline": "critic"}, r"^baseline = critic: .*one of group, rloo, none"),
    ({"entropy": -1.0}, r"^entropy = -1.0: .*0 or more"),
    (
        {"correction": Correction("mask")},
        r"^correction.mode = mask: .*none while proximal is behaviour, since pi_prox / mu is 1",
    ),
    (
        {"loss": "gspo", "proximal": Proximal("recomputed")},
        r"^proximal.policy = recomputed: .*behaviour or interpolated with gspo: its ratio is",
    ),
    (
        {"loss": "gspo", "proximal": Proximal("interpolated"), "correction": Correction("mask", "token")},
        r"^correction.level = token: .*sequence with gspo",
    ),
    ({"loss": "cispo", "proximal": Proximal("recomputed")}, r"proximal.policy = recomputed: .* behaviour with cispo"),
    ({"loss": "cispo", "correction": Correction("mask")}, r"correction.mode = mask: .*none with cispo"),
    ({"loss": "reinforce", "proximal": Proximal("interpolated")}, r"behaviour or recomputed with reinforce"),
    ({"proximal": Proximal("recomputed"), "clip_low": 0.1}, r"^clip_low = 0.1: .*left out: .*ratio is 1"),
    (
        {"loss": "reinforce", "clip_high": 0.3},
        r"^clip_high = 0.3: .*left out: reinforce has no",
    ),
    (
        {"loss": "own_loss:mine", "entropy": 0.1},
        r"^entropy = 0.1: .*0 with own_loss:mine: your",
    ),
    (
        {"loss": "own_loss:mine", "kl": KL(0.1)},
        r"^kl.coefficient = 0.1: .*0 with own_loss:mine",
    ),
    ({"loss": "own_loss:short"}, r"^loss = own_loss:short: .* def short\(output, targets, options\)"),
    ({"loss": "own_loss:number"}, r"^loss = own_loss:number: own_loss has no function number"),
    ({"loss": "none_such:mine"}, r"^loss = none_such:mine: none_such cannot be imported: ModuleNotFoundError"),
]


@pytest.fixture(autouse=True)
def own_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_loss.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"), REFUSED, ids=lambda case: " ".join(case) if isinstance(case, dict) else ""
)
def test_meaningless_settings_are_refused_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as refused:
        AlgorithmConfig(**values)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KL(0.1, "k1"), r"^estimator = k1: its gradient in a loss is zero in expectation; use k2"),
        (lambda: KL(-1.0), r"^coefficient = -1.0"),
        (lambda: KL(0.1, "k4"), r"^estimator = k4"),
        (lambda: KL(0.1, "k2", "advantage"), r"^where = advantage: .*one of loss, reward"),
        (lambda: Proximal("old"), r"^policy = old: .*one of behaviour, recomputed, inter"),
        (lambda: Proximal("interpolated", 1.0), r"^alpha = 1.0: .*above 0 and below 1"),
        (lambda: Correction("clip"), r"^mode = clip: .*one of none, plain, truncate"),
        (lambda: Correction("mask", "group"), r"^level = group"),
        (lambda: Correction("mask", low=1.5), r"^low = 1.5: .*at least 0 and below 1"),
        (lambda: Correction(high=8.0), r"^high = 8.0: .*left out: with mode none it has no effect"),
        (lambda: Correction(level="sequence"), r"^level = sequence: .*left out"),
        (lambda: Correction("plain", high=8.0), r"^high = 8.0: .*left out: with mode plain"),
        (lambda: Correction("truncate", low=0.1), r"^low = 0.1: .*left out: with mode truncate"),
        (lambda: Proximal("recomputed", 0.3), r"^alpha = 0.3: .*left out: policy recomputed has no alpha"),
        (lambda: Correction("mask", high=0.9), r"^high = 0.9: .*above 1"),
        (lambda: Correction("mask", high=1e9), r"^high = 1000000000.0: .*below 4.9e\+08, the highest ratio"),
        (lambda: Correction("mask", low=1e-9), r"^low = 1e-09: .*0, or above 2.1e-09, the least ratio"),
    ],
)
def test_a_section_names_the_key_that_it_refuses(make: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make()


def test_baseline_and_std_are_refused_when_the_reward_normalises() -> None:
    for override in ("algorithm.baseline=rloo", "algorithm.divide_by_std=true"):
        algorithm(override)
        with pytest.raises(BadInput, match=r"algorithm\.\w+ = .* with reward.normalise = each, which "):
            algorithm("reward.normalise=each", override)


def test_a_users_loss_is_the_whole_loss() -> None:
    config = algorithm("algorithm.loss=own_loss:mine", "algorithm.options.scale=2.0")
    ones = torch.ones(3)
    targets = TokenTargets(ones / 3, ones, ones, torch.zeros(3, dtype=torch.long))
    output = PolicyOutput(torch.tensor([-1.0, -2.0, -3.0], requires_grad=True))
    result = make_loss(config)(output, targets)
    assert (result.loss.item(), result.metrics) == (pytest.approx(4.0), {"scale": 2.0})
    for function in ("bare", "constant"):
        with pytest.raises(BadInput, match=f"^loss = own_loss:{function}: returned a .*; must return a LossResult"):
            make_loss(algorithm(f"algorithm.loss=own_loss:{function}"))(output, targets)
