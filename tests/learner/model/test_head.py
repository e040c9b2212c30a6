"""Log-probs by chunks of the vocabulary: exact, and with memory that does not depend on the vocabulary's size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.logprob_memory import peak_mib
from evidence.sampling import BANNED_LOGIT_BIAS
from learner.model.head import ScoringHead

TEMPERATURE = 0.7
BANNED = (3, 40)
CHUNK = 256  # columns per chunk where memory is measured


def plain(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, precise: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs and entropies with all logits at once."""
    logits = (hidden @ weight.T).to(torch.float64 if precise else torch.float32)
    logits[:, list(BANNED)] += BANNED_LOGIT_BIAS
    log = (logits / TEMPERATURE).log_softmax(1)
    return log.gather(1, targets[:, None])[:, 0], -(log.exp() * log).sum(1)


def case(n: int, width: int, vocab: int, dtype: torch.dtype) -> tuple[torch.Tensor, nn.Linear, torch.Tensor]:
    torch.manual_seed(n)
    head = nn.Linear(width, vocab, bias=False, dtype=dtype)
    targets = torch.randint(vocab, (n,))
    targets[: min(n, 2)] = torch.tensor([0, vocab - 1])[:n]
    return torch.randn(n, width, dtype=dtype, requires_grad=True), head, targets


def scoring(head: nn.Linear, columns: int, n: int) -> ScoringHead:
    score = ScoringHead(head, BANNED, chunk_mib=1)
    score.chunk_bytes = 4 * n * columns
    return score


@pytest.mark.parametrize("columns", [1, 7, 16, 64, 1000])
@pytest.mark.parametrize("use", ["logprobs", "entropy", "both"])
def test_values_and_gradients_match_the_whole_softmax(columns: int, use: str) -> None:
    hidden, head, targets = case(9, 12, 64, torch.float32)
    ours = scoring(head, columns, 9)(hidden, targets, TEMPERATURE)
    theirs = plain(hidden.double(), head.weight.double(), targets, precise=True)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a.double(), b, atol=1e-6, rtol=1e-6)
    weights = torch.randn(2, 9) * torch.tensor([[use != "entropy"], [use != "logprobs"]])
    given = [(o, w) for o, w in zip(ours, weights) if w.any()]
    gradients = torch.autograd.grad([o for o, _ in given], [hidden, head.weight], [w for _, w in given])
    wanted = torch.autograd.grad(list(theirs), [hidden, head.weight], list(weights.double()))
    for a, b in zip(gradients, wanted):
        torch.testing.assert_close(a, b.float(), atol=1e-6, rtol=1e-6)


def test_bfloat16_weights_round_only_the_logits() -> None:
    hidden, head, targets = case(9, 12, 64, torch.bfloat16)
    with torch.no_grad():
        for tensor in (hidden, head.weight):
            tensor.copy_((64 * tensor).round() / 64)  # exact sums, so that no order of addition changes a rounding
    ours = scoring(head, 10, 9)(hidden, targets, TEMPERATURE)
    theirs = plain(hidden, head.weight, targets)
    for a, b in zip(ours, theirs):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)
    gradients = torch.autograd.grad(ours[0].sum(), [hidden, head.weight])
    wanted = torch.autograd.grad(theirs[0].sum(), [hidden, head.weight])
    for a, b in zip(gradients, wanted):
        assert a.dtype == torch.bfloat16
        torch.testing.assert_close(a, b, atol=1e-2, rtol=1e-2)


def test_no_targets_is_not_an_error() -> None:
    hidden, head, targets = case(0, 12, 64, torch.float32)
    logprobs, entropy = ScoringHead(head, BANNED, 1)(hidden, targets, TEMPERATURE)
    (logprobs.sum() + entropy.sum()).backward()
    assert logprobs.shape == entropy.shape == (0,)
    assert not head.weight.grad.any()


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden, head, targets = case(9, 12, 64, torch.float32)
    head.requires_grad_(False)
    scoring(head, 10, 9)(hidden, targets, TEMPERATURE)[0].sum().backward()
    assert head.weight.grad is None
    assert hidden.grad.any()


# Ids that truncated sampling left, for three places: the first has one, and one has its ids in any order.
KEPT = torch.tensor([[5, -1, -1, -1], [0, 63, 17, -1], [40, 9, 62, 31]])


@pytest.mark.parametrize("columns", [1, 7, 16, 64, 1000])
def test_over_a_kept_set_values_and_gradients_are_those_of_the_renormalised_softmax(columns: int) -> None:
    hidden, head, _ = case(3, 12, 64, torch.float32)
    targets = torch.tensor([5, 63, 9])
    ours = scoring(head, columns, 3)(hidden, targets, TEMPERATURE, KEPT)
    logits = (hidden.double() @ head.weight.double().T).index_add(
        1, torch.tensor(BANNED), torch.full((3, 2), BANNED_LOGIT_BIAS, dtype=torch.float64)
    )
    logprobs, entropies = [], []
    for row, ids, target in zip(logits / TEMPERATURE, KEPT, targets):
        log = row[ids[ids >= 0]].log_softmax(0)
        logprobs.append(log[(ids == target).nonzero()[0, 0]])
        entropies.append(-(log.exp() * log).sum())
    theirs = torch.stack(logprobs), torch.stack(entropies)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a.double(), b, atol=1e-6, rtol=1e-6)
    assert ours[0][0].item() == ours[1][0].item() == 0, "a single token is certain"
    weights = torch.randn(2, 3)
    gradients = torch.autograd.grad(ours, [hidden, head.weight], list(weights))
    wanted = torch.autograd.grad(theirs, [hidden, head.weight], list(weights.double()))
    for a, b in zip(gradients, wanted):
        torch.testing.assert_close(a, b.float(), atol=1e-6, rtol=1e-6)


def test_the_whole_vocabulary_as_a_kept_set_changes_nothing() -> None:
    hidden, head, targets = case(4, 12, 64, torch.float32)
    score = scoring(head, 10, 4)
    whole = torch.arange(64).expand(4, 64)
    for a, b in zip(score(hidden, targets, TEMPERATURE, whole), score(hidden, targets, TEMPERATURE)):
        assert torch.equal(a, b)


def peak(vocab: int, whole: bool) -> float:
    """Peak MiB in a forward and backward over 64 scored tokens, beside the head and its gradient."""
    hidden, head, targets = case(64, 16, vocab, torch.float32)
    score = scoring(head, CHUNK, 64)
    return peak_mib(
        lambda: plain(hidden, head.weight, targets)[0] if whole else score(hidden, targets, 1.0)[0],
        head,
    )


def test_memory_is_flat_from_a_thousand_to_150_thousand_tokens() -> None:
    small, large = peak(1000, whole=False), peak(150_000, whole=False)
    assert large == pytest.approx(small, rel=0.25)
    assert large < 6 * 64 * CHUNK * 4 / 2**20, "a few chunks"
    assert peak(150_000, whole=True) > 36, "64 x 150,000 logits are 36.6 MiB: the count sees them"
