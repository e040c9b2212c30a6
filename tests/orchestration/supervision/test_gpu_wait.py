"""A run on a joined cluster waits for GPUs that are missing or held, and says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import ray
from ray.util import state

from evidence.errors import BadInput, RunFailed
from orchestration.supervision import gpu_wait
from orchestration.supervision.gpu_wait import described, wait_for_gpus


class Cluster:
    """A cluster whose (total, free) GPUs change with every second look; the last ones stay. Records what is said."""

    def __init__(self, *seen: tuple[float, float]):
        self.seen, self.said = list(seen), []

    def total(self) -> dict[str, float]:
        return {"GPU": self.seen[0][0]}

    def free(self) -> dict[str, float]:
        free = {"GPU": self.seen[0][1]}
        if len(self.seen) > 1:
            self.seen.pop(0)
        return free

    @contextmanager
    def awaiting(self, part: str) -> Iterator[None]:
        self.said.append(part)
        yield


def joined(monkeypatch: pytest.MonkeyPatch, *seen: tuple[float, float]) -> Cluster:
    cluster = Cluster(*seen)
    actors = [
        SimpleNamespace(job_id="02000000", required_resources={"GPU": 1.0}),
        SimpleNamespace(job_id="02000000", required_resources={"GPU": 0.5}),
        SimpleNamespace(job_id="03000000", required_resources={"CPU": 1.0}),
    ]
    jobs = [SimpleNamespace(job_id="02000000", submission_id="raysubmit_1", entrypoint="ser train a.yaml")]
    monkeypatch.setattr(ray, "cluster_resources", cluster.total)
    monkeypatch.setattr(ray, "available_resources", cluster.free)
    monkeypatch.setattr(state, "list_actors", lambda **_: actors)
    monkeypatch.setattr(state, "list_jobs", lambda **_: jobs)
    monkeypatch.setattr(gpu_wait, "awaiting", cluster.awaiting)
    monkeypatch.setattr(gpu_wait, "POLL_S", 0.0)
    return cluster


def test_nodes_that_join_and_jobs_that_end_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = joined(monkeypatch, (0, 0), (8, 8), (16, 14.5), (16, 16))
    wait_for_gpus(16, 60)
    assert cluster.said == [
        "16 GPUs: the cluster has 0",
        "16 GPUs: the cluster has 8",
        "16 GPUs: 14.5 of the cluster's 16 are free, held 1.5 by job raysubmit_1",
    ]


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
    with pytest.raises(RunFailed, match=r"14\.5 of the cluster's 16 are free, held 1\.5 by job raysubmit_1 after 0 s"):
        wait_for_gpus(16, 0)


def test_a_cluster_without_a_dashboard_names_no_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: object) -> None:
        raise ConnectionError

    cluster = joined(monkeypatch, (4, 1), (4, 4))
    monkeypatch.setattr(state, "list_actors", refused)
    wait_for_gpus(4, 60)
    assert cluster.said == ["4 GPUs: 1 of the cluster's 4 are free"]


def test_holders_are_sorted() -> None:
    assert described(4, 4, 0, {"job b": 3, "job a": 1}).endswith("held 1 by job a, 3 by job b")
