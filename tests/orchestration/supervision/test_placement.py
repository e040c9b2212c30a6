"""The learner's ranks are placed on the cluster together or not at all. GPUs here are only the name of a resource."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from nodes import another_node
from ray.util import placement_group_table
from saving import save

from evidence.errors import RunFailed
from evidence.limits import Limits
from learner.settings import RankConfig
from orchestration.supervision.learner_gang import LearnerGang
from orchestration.supervision.placement import Placement

pytestmark = pytest.mark.slow


@pytest.fixture
def two_nodes(ray_cluster: Any) -> Iterator[None]:
    """Two nodes with a GPU each, beside the cluster's own node without any."""
    options = "--num-gpus=1", f"--object-store-memory={80 * 2**20}"
    with another_node(*options) as first, another_node(*options) as second:
        yield
        for node in (first, second):  # both at once, so that Ray notices both deaths in the same wait
            node.kill()


def placement_groups() -> dict[str, dict[str, Any]]:
    groups = placement_group_table().values()
    return {group["placement_group_id"]: group for group in groups if group["state"] != "REMOVED"}


def test_ranks_on_two_nodes_form_one_gang(two_nodes: None, tiny_model: Path, encoder: Any, tmp_path: Path) -> None:
    others = placement_groups().keys()
    gang = LearnerGang(RankConfig(str(tiny_model), encoder.banned_ids), 2, gpus=1)
    (group,) = (group for key, group in placement_groups().items() if key not in others)
    assert (group["state"], group["strategy"]) == ("CREATED", "PACK")
    assert len(set(group["bundles_to_node_id"].values())) == 2
    save(gang, tmp_path, 1)  # a collective
    with pytest.raises(RunFailed) as refused:
        LearnerGang(RankConfig(str(tiny_model), encoder.banned_ids, limits=Limits(start_s=2)), 1, gpus=1)
    message = "the learner's ranks could not be placed within 2 s: they need 1 times 1 GPUs"
    assert str(refused.value).startswith(message)
    assert str(refused.value).endswith("0 are free")
    gang.stop()
    assert placement_groups().keys() == others, "both placement groups are removed"
    LearnerGang(RankConfig(str(tiny_model), encoder.banned_ids), 2, gpus=1).stop()
    placement = Placement(1, 0.0, 10, "an actor")
    visible = ray.remote(lambda: os.environ.get("CUDA_VISIBLE_DEVICES")).options(**placement.options(0)).remote()
    assert ray.get(visible, timeout=60) == "", "who asks for no GPU sees none"
    placement.release()


def test_the_error_states_the_gpus_needed_and_those_of_the_cluster(ray_cluster: Any, tiny_model: Path) -> None:
    message = r"they need 3 times 2 GPUs; the cluster's \d nodes have [\d, ]+, of which \d are free$"
    with pytest.raises(RunFailed, match=message):
        LearnerGang(RankConfig(str(tiny_model), (), limits=Limits(start_s=2)), 3, gpus=2)
