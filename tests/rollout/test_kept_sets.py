"""The tokens that truncated sampling left, as the engine returns them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rollout.engine import Engine
from rollout.engine_setup import returns_kept_sets


def completion(sampling_mask: Any) -> Any:
    """A completion of two tokens, as vLLM 0.32 returns it."""
    return SimpleNamespace(
        token_ids=[7, 9],
        logprobs=[{7: SimpleNamespace(logprob=-0.5)}, {9: SimpleNamespace(logprob=0.0)}],
        weight_versions=[SimpleNamespace(version="3", start=0, end=2)],
        sampling_mask=sampling_mask,
        finish_reason="stop",
    )


def engine(**truncation: Any) -> Engine:
    llm = SimpleNamespace(tokenizer=SimpleNamespace(decode=lambda ids, skip_special_tokens: "text"))
    return Engine(llm, (), 0, **truncation)


def test_kept_sets_are_padded_to_the_largest() -> None:
    trajectory = engine(top_p=0.95, top_k=20)._trajectory(completion(SimpleNamespace(token_ids=[[4, 7, 8], [9]])))
    assert trajectory.kept.dtype == "int32"
    assert trajectory.kept.tolist() == [[4, 7, 8], [9, -1, -1]]


def test_without_truncation_there_is_no_kept_set() -> None:
    assert engine()._trajectory(completion(None)).kept is None


@pytest.mark.slow
def test_a_cpu_engine_returns_no_kept_sets() -> None:
    assert not returns_kept_sets()
