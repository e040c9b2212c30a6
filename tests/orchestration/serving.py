"""A running policy for tests: the embedded model, in the Ray of the tests, in an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestration.config import load_config
from orchestration.supervision.standalone_policy import (
    StandalonePolicy,
    StandalonePolicyConfig,
    check_policy,
    running_policy,
)

ROOT = Path(__file__).parents[2]
# As the embedded policy was trained, with room for questions of another kind.
SETTINGS = ["engine.max_model_len=1024", "max_tokens=64", "cluster.frames_gib=0.05", "cluster.kv_cache_gib=0.25"]


def settings(*more: str) -> StandalonePolicyConfig:
    model = f"model={ROOT / 'assets/policy'}"
    return load_config(StandalonePolicyConfig, ROOT / "tests/orchestration/serving.yaml", [model, *SETTINGS, *more])


@contextlib.contextmanager
def served(*more: str) -> Iterator[tuple[StandalonePolicy, Callable[..., Any]]]:
    """(the policy, the function that runs a coroutine in its event loop). Needs the fixture `ray_cluster`."""
    config, encoder = check_policy(settings(*more))

    with asyncio.Runner() as runner:
        manager = running_policy(config, encoder, config.contract.frames + 1)
        policy = runner.run(manager.__aenter__())
        try:
            yield policy, runner.run
        finally:
            runner.run(manager.__aexit__(None, None, None))
