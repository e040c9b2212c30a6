"""Room on the cluster for actors that can only work together: all of them are placed, or none is."""

from __future__ import annotations

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from evidence.errors import RunFailed

# A bundle must not be empty; actors without a GPU share the cores of their node as the system gives them out.
NO_GPU = {"CPU": 0.001}


class Placement:
    """A place for each of `count` actors with `gpus` GPUs, on as few nodes as will hold them. `what` they are is for
    the reader of the error.

    Raises RunFailed, saying what was asked for and what is there, if they are not to be had within `timeout_s`.
    """

    def __init__(self, count: int, gpus: float, timeout_s: float, what: str):
        self.gpus = gpus
        self.group: PlacementGroup = placement_group([{"GPU": gpus} if gpus else NO_GPU] * count, strategy="PACK")
        if not self.group.wait(timeout_s):
            self.release()
            nodes = [node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]]
            raise RunFailed(
                f"no room for {what} in {timeout_s:g} s: {count} times {gpus:g} GPUs were asked for; the cluster's "
                f"{len(nodes)} nodes have {', '.join(f'{n:g}' for n in nodes)}, of which "
                f"{ray.available_resources().get('GPU', 0):g} are free"
            )

    def options(self, number: int) -> dict[str, object]:
        """Of the actor that is to have place `number`."""
        strategy = PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=number)
        return {"num_cpus": 0, "num_gpus": self.gpus, "scheduling_strategy": strategy}

    def release(self) -> None:
        """Give the places back; who still has one is killed."""
        remove_placement_group(self.group)
