"""The composition of a loss by its config: a user's own loss, and what is missing or counted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from evidence.errors import BadInput
from learner.algorithm import KL, AlgorithmConfig
from learner.losses import LossResult, PolicyOutput, TokenTargets, make_loss

OWN = """
from learner.losses import LossResult

def mine(output, targets, options):
    return LossResult(options["scale"] * (targets.weights * output.logprobs).sum(), {"scale": options["scale"]})

def bare(output, targets, options):
    return output.logprobs.sum()

def per_token(output, targets, options):
    return LossResult(output.logprobs, {})

def constant(output, targets, options):
    return LossResult(targets.weights.sum(), {})
"""


@pytest.fixture(autouse=True)
def own_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "losses_of_mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "losses_of_mine", raising=False)


def result_of(config: AlgorithmConfig, log_ratio: float = 0.0, **fields: Any) -> LossResult:
    behaviour = torch.tensor([-40.0, -40.0])
    targets = TokenTargets(torch.tensor([0.25, 0.75]), torch.ones(2), behaviour, torch.tensor([0, 1]), **fields)
    return make_loss(config)(PolicyOutput((behaviour + log_ratio).requires_grad_()), targets)


def test_a_users_loss_gets_outputs_targets_and_options() -> None:
    result = result_of(AlgorithmConfig(loss="losses_of_mine:mine", options={"scale": 2.0}))
    assert (result.loss.item(), result.metrics) == (-80, {"scale": 2.0})


@pytest.mark.parametrize(
    ("function", "kind"), [("bare", "Tensor"), ("per_token", "LossResult"), ("constant", "LossResult")]
)
def test_a_users_loss_must_be_a_scalar_with_a_gradient(function: str, kind: str) -> None:
    with pytest.raises(BadInput) as refused:
        result_of(AlgorithmConfig(loss=f"losses_of_mine:{function}"))
    assert str(refused.value) == (
        f"loss = losses_of_mine:{function}: returned a {kind}; must return a LossResult (learner/losses/tokens.py) "
        "with a scalar loss that depends on output.logprobs"
    )


def test_a_token_counts_as_bounded_if_only_its_ratio_to_the_behaviour_is() -> None:
    reinforce = AlgorithmConfig(loss="reinforce")
    assert result_of(reinforce, 30.0).metrics["bounded"] == 1
    assert result_of(reinforce, 10.0).metrics["bounded"] == 0


def test_what_a_loss_lacks_is_named() -> None:
    with pytest.raises(ValueError, match=r"^algorithm\.kl\.coefficient: the targets have no reference log-probs$"):
        result_of(AlgorithmConfig(kl=KL(0.1)))
    with pytest.raises(ValueError, match=r"^algorithm\.entropy: the policy did not compute its entropy$"):
        result_of(AlgorithmConfig(entropy=0.1))
