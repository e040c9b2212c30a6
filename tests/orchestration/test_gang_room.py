"""The learner's ranks have their places on the cluster together or not at all. GPUs here are a resource's name only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evidence.errors import RunFailed
from learner.settings import RankConfig
from orchestration.gang import Gang

pytestmark = pytest.mark.slow


def test_a_cluster_that_is_too_small_is_told_as_it_is(ray_cluster: Any, tiny_model: Path) -> None:
    told = r"3 times 2 GPUs were asked for; the cluster's \d nodes have [\d, ]+, of which \d are free$"
    with pytest.raises(RunFailed, match=told):
        Gang(RankConfig(str(tiny_model), (), timeout_s=2), 3, gpus=2)
