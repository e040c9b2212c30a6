"""Joining a cluster that cannot be joined, or is too small."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import ray

from evidence.errors import BadInput
from orchestration.diagnosis.gpu_facts import Gpu, GpuFacts
from orchestration.supervision.cluster import start_ray


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379"), "Failed to connect to Ray cluster"),
        (ValueError("Invalid Ray address: 'http://head:8265'.\nTo fix this, …"), "Invalid Ray address: 'http://head"),
        (ray.exceptions.AuthenticationError("no authentication token was found"), "no authentication token was found"),
    ],
    ids=["nobody there or a wrong token", "the dashboard's address", "no token"],
)
def test_a_cluster_that_cannot_be_joined_is_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def init(**_: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)  # of the Ray that other tests share
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(BadInput) as refusal, start_ray(0.1):
        pass
    text = str(refusal.value)
    assert text.startswith(f"RAY_ADDRESS = 10.0.0.1:6379: {reason}")
    assert "RAY_AUTH_MODE=token and the head's ~/.ray/auth_token" in text
    assert "\n" not in text
    # The same error of a Ray that this process starts itself has nothing to do with an address.
    monkeypatch.delenv("RAY_ADDRESS")
    with pytest.raises(type(error)), start_ray(0.1):
        pass


def test_a_joined_cluster_with_too_small_a_store_is_refused_with_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def node(address: str, gib: float, alive: bool = True) -> dict[str, Any]:
        return {"Alive": alive, "NodeManagerAddress": address, "Resources": {"object_store_memory": gib * 2**30}}

    nodes = [node("10.0.0.1", 64), node("10.0.0.2", 38.25), node("10.0.0.3", 1, alive=False)]
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": 8.0})
    monkeypatch.setattr(ray, "available_resources", lambda: {"GPU": 8.0})
    monkeypatch.setattr("orchestration.supervision.cluster.ended_with_ray", lambda **_: contextlib.nullcontext())
    monkeypatch.setattr("orchestration.supervision.cluster.require_equal_nodes", lambda paths: None)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with start_ray(38.25, 8):
        pass
    message = r"^cluster.object_store_gib = 40: the joined cluster's node 10.0.0.2 has an object store of 38.25 GiB; "
    with pytest.raises(BadInput, match=message), start_ray(40):
        pass
    with pytest.raises(BadInput, match="need 9 GPUs, the cluster has 8 after 0 s; lower"), start_ray(1, 9, start_s=0):
        pass


def test_gpus_that_are_not_there_are_refused_by_name_before_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray has been started"))
    card = Gpu("NVIDIA L40S", 44.4, 0.0, (8, 9), "")
    for gpus, seen in (((), "0"), ((card, card), "2 x NVIDIA L40S")):
        monkeypatch.setattr("orchestration.supervision.cluster.read_gpus", lambda gpus=gpus: GpuFacts(gpus))
        message = f"gpus_per_rank: need 3 GPUs, this machine has {seen}; lower learner.ranks"
        with pytest.raises(BadInput, match=message), start_ray(0.1, 3):
            pass
