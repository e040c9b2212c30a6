"""Placement of actors on the cluster: a gang that can only work together is placed as a whole or not at all."""

from __future__ import annotations

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from evidence.errors import RunFailed

# A bundle must not be empty. Actors without a GPU reserve no cores: the operating system shares them out.
NO_GPU = {"CPU": 0.001}
# Ray does not hide a node's GPUs from an actor that asked for none, whose code would then use them.
HIDDEN = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}


class Placement:
    """A placement group: a bundle of `gpus` GPUs for each of `count` actors, on as few nodes as hold them.

    `actors` names the actors in the error message. Raises RunFailed, with the GPUs requested and those available, if
    the bundles cannot be reserved within `timeout_s` seconds.
    """

    def __init__(self, count: int, gpus: float, timeout_s: float, actors: str):
        self.gpus = gpus
        self.group: PlacementGroup = placement_group([{"GPU": gpus} if gpus else NO_GPU] * count, strategy="PACK")
        if not self.group.wait(timeout_s):
            self.release()
            nodes = [node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]]
            raise RunFailed(
                f"{actors} could not be placed within {timeout_s:g} s: they need {count} times {gpus:g} GPUs; the "
                f"cluster's {len(nodes)} nodes have {', '.join(f'{n:g}' for n in nodes)}, of which "
                f"{ray.available_resources().get('GPU', 0):g} are free"
            )

    def options(self, index: int) -> dict[str, object]:
        """Ray options that place an actor in bundle `index`."""
        strategy = PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=index)
        options = {"num_cpus": 0, "num_gpus": self.gpus, "scheduling_strategy": strategy}
        # Only where there are GPUs: a worker with an environment of its own starts later.
        hides = not self.gpus and ray.cluster_resources().get("GPU", 0) > 0
        return options | ({"runtime_env": HIDDEN} if hides else {})

    def release(self) -> None:
        """Remove the placement group. Actors still placed in it are killed."""
        remove_placement_group(self.group)
