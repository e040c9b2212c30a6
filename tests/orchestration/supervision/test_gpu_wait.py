"""A run on a joined cluster waits for GPUs that are missing or held, and says so."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import ray
from ray.util import state
from ray.util.state.exception import ServerUnavailable

from evidence.errors import BadInput, RunFailed
from orchestration.supervision import gpu_wait
from orchestration.supervision.gpu_wait import wait_for_gpus

GROUP = "GPU_group_" + "0a" * 18


class Cluster:
    """A cluster whose (total, free) GPUs change with every look; the last ones stay. Records what is said."""

    def __init__(self, *seen: tuple[float, float]):
        self.seen, self.said = list(seen), []

    def total(self) -> dict[str, float]:
        return {"GPU": self.seen[0][0]}

    def free(self) -> dict[str, float]:
        free = {"GPU": self.seen[0][1]}
        if len(self.seen) > 1:
            self.seen.pop(0)
        return free


def joined(monkeypatch: pytest.MonkeyPatch, *seen: tuple[float, float]) -> Cluster:
    cluster = Cluster(*seen)
    actors = [
        SimpleNamespace(job_id="02000000", required_resources={GROUP: 1.0, GROUP.replace("p_", "p_0_"): 1.0}),
        SimpleNamespace(job_id="02000000", required_resources={"GPU": 0.5}),
        SimpleNamespace(job_id="03000000", required_resources={"CPU": 1.0}),
    ]
    jobs = [SimpleNamespace(job_id="02000000", submission_id="raysubmit_1", entrypoint="ser train a.yaml")]
    monkeypatch.setattr(ray, "cluster_resources", cluster.total)
    monkeypatch.setattr(ray, "available_resources", cluster.free)
    monkeypatch.setattr(state, "list_actors", lambda **_: actors)
    monkeypatch.setattr(state, "list_jobs", lambda **_: jobs)
    monkeypatch.setattr(gpu_wait, "say", cluster.said.append)
    monkeypatch.setattr(gpu_wait, "POLL_S", 0.0)
    monkeypatch.setattr(gpu_wait, "ASK_S", 0.0)
    return cluster


def test_nodes_that_join_and_jobs_that_end_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = joined(monkeypatch, (0, 0), (0, 0), (8, 8), (16, 14.5), (16, 14.5), (16, 16))
    wait_for_gpus(16, 60)
    held = ", held 1.5 by job raysubmit_1"
    assert cluster.said == [
        f"16 GPUs are needed: the cluster has 0{held}",
        f"16 GPUs are needed: the cluster has 8{held}",
        f"16 GPUs are needed: 14.5 of the cluster's 16 are free{held}",
    ]


def test_changes_are_not_said_faster_than_the_dashboard_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = joined(monkeypatch, *((16, free) for free in range(16)), (16, 16))
    monkeypatch.setattr(gpu_wait, "ASK_S", 60.0)
    wait_for_gpus(16, 60)
    assert len(cluster.said) == 1


def test_nothing_is_said_when_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = joined(monkeypatch, (2, 2))
    wait_for_gpus(2, 0)
    assert cluster.said == []


def test_too_few_gpus_are_bad_input_after_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    joined(monkeypatch, (8, 8))
    with pytest.raises(BadInput, match=r"need 16 GPUs, the cluster has 8 after 0 s; lower learner\.ranks"):
        wait_for_gpus(16, 0)


def test_gpus_that_others_keep_are_a_failed_run(monkeypatch: pytest.MonkeyPatch) -> None:
    joined(monkeypatch, (16, 14.5))
    with pytest.raises(RunFailed, match=r"14\.5 of the cluster's 16 are free after 0 s; end what holds them"):
        wait_for_gpus(16, 0)


def test_a_dashboard_that_does_not_answer_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: object) -> None:
        raise ServerUnavailable("no dashboard")

    cluster = joined(monkeypatch, (4, 1), (4, 4))
    monkeypatch.setattr(state, "list_actors", refused)
    wait_for_gpus(4, 60)
    assert cluster.said == ["4 GPUs are needed: 1 of the cluster's 4 are free"]
