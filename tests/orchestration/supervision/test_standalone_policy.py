"""A policy outside training: what it refuses before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from evidence.errors import BadInput
from evidence.sampling import SamplingContract
from orchestration.config import load_config
from orchestration.supervision.engines import EngineSizes
from orchestration.supervision.standalone_policy import StandalonePolicyConfig, check_policy


def test_frames_and_a_completion_that_do_not_fit_the_context_are_refused_before_anything_starts(
    tiny_model: Path,
) -> None:
    contract = SamplingContract(frames=4, max_pixels=3136, min_pixels=3136)
    config = StandalonePolicyConfig(str(tiny_model), EngineSizes(max_model_len=160), max_tokens=100, contract=contract)
    with pytest.raises(BadInput, match=r"^engine\.max_model_len = 160: a prompt of 4 frames and its completion can"):
        check_policy(config)


def test_the_contract_takes_the_tile_of_the_model(tiny_qwen3: Path) -> None:
    config, encoder = check_policy(StandalonePolicyConfig(str(tiny_qwen3), EngineSizes(max_model_len=8192)))
    assert config.contract.tile == encoder.tile == 32


def test_a_completion_as_long_as_the_context_is_refused() -> None:
    with pytest.raises(BadInput, match=r"max_tokens = 2048: must be below engine\.max_model_len \(2048\)"):
        load_config(StandalonePolicyConfig, None, ["model=folder", "max_tokens=2048"])
