"""The learner's ranks have their places on the cluster together or not at all. GPUs here are a resource's name only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nodes import another_node
from ray.util import placement_group_table

from evidence.errors import RunFailed
from learner.settings import RankConfig
from orchestration.supervision.learner_gang import LearnerGang

pytestmark = pytest.mark.slow


@pytest.fixture
def two_nodes(ray_cluster: Any) -> Iterator[None]:
    """With a GPU each, beside the cluster's own without any."""
    options = "--num-gpus=1", f"--object-store-memory={80 * 2**20}"
    with another_node(*options) as one, another_node(*options) as other:
        yield
        for node in (one, other):  # Ray misses them at the same time
            node.kill()


def rooms() -> dict[str, dict[str, Any]]:
    return {room["placement_group_id"]: room for room in placement_group_table().values() if room["state"] != "REMOVED"}


def test_ranks_on_two_nodes_form_one_gang(two_nodes: None, tiny_model: Path, encoder: Any, tmp_path: Path) -> None:
    others = rooms().keys()
    gang = LearnerGang(RankConfig(str(tiny_model), encoder.banned_ids, timeout_s=400), 2, gpus=1)
    (room,) = (room for name, room in rooms().items() if name not in others)
    assert (room["state"], room["strategy"]) == ("CREATED", "PACK")
    assert len(set(room["bundles_to_node_id"].values())) == 2
    gang.save(tmp_path, 1, {})  # a collective
    with pytest.raises(RunFailed) as refused:
        LearnerGang(RankConfig(str(tiny_model), encoder.banned_ids, timeout_s=2), 1, gpus=1)
    assert str(refused.value).startswith("no room for the learner's ranks in 2 s: 1 times 1 GPUs were asked for")
    assert str(refused.value).endswith("0 are free")
    gang.stop()
    assert rooms().keys() == others, "both rooms are given back"
    LearnerGang(RankConfig(str(tiny_model), encoder.banned_ids, timeout_s=400), 2, gpus=1).stop()


def test_a_cluster_that_is_too_small_is_told_as_it_is(ray_cluster: Any, tiny_model: Path) -> None:
    told = r"3 times 2 GPUs were asked for; the cluster's \d nodes have [\d, ]+, of which \d are free$"
    with pytest.raises(RunFailed, match=told):
        LearnerGang(RankConfig(str(tiny_model), (), timeout_s=2), 3, gpus=2)
