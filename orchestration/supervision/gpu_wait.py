"""Waits until a joined cluster has the GPUs of a run, and says meanwhile how many are missing and who holds them.

Nodes of a Slurm job or of an autoscaler join one after the other, and other jobs end.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping

import ray
from ray.util import state

from evidence.errors import BadInput, RunFailed
from orchestration.reporting.awaiting import awaiting

POLL_S = 2.0
KEYS = "cluster.gpus_per_engine, gpus_per_rank"
FEWER = "lower learner.ranks, cluster.rollout_engines or model.referee.replicas, or join a cluster that has them"


def wait_for_gpus(gpus: float, limit_s: float) -> None:
    """Return as soon as `gpus` GPUs are free. After `limit_s` seconds, raises BadInput if the cluster has fewer, and
    RunFailed if others hold them."""
    end = time.monotonic() + limit_s
    now = _missing(gpus)
    while missing := now:
        with awaiting(missing):
            while now == missing:
                if time.monotonic() >= end:
                    too_few = gpus > _count(ray.cluster_resources())
                    raise (BadInput if too_few else RunFailed)(
                        f"{KEYS}: need {gpus:g} GPUs, {missing.partition(': ')[2]} after {limit_s:g} s"
                        + (f"; {FEWER}" if too_few else "; end what holds them, or raise limits.start_s")
                    )
                time.sleep(POLL_S)
                now = _missing(gpus)


def _missing(gpus: float) -> str:
    total, free = _count(ray.cluster_resources()), _count(ray.available_resources())
    return described(gpus, total, free, _holders() if gpus > free and gpus <= total else {})


def described(gpus: float, total: float, free: float, holders: Mapping[str, float]) -> str:
    """What is missing of `gpus` GPUs, "" if nothing is. holders: GPUs by the job that holds them."""
    if gpus > total:
        return f"{gpus:g} GPUs: the cluster has {total:g}"
    if gpus > free:
        held = ", ".join(f"{count:g} by {job}" for job, count in sorted(holders.items()))
        return f"{gpus:g} GPUs: {free:g} of the cluster's {total:g} are free" + (f", held {held}" if held else "")
    return ""


def _count(resources: Mapping[str, float]) -> float:
    return resources.get("GPU", 0.0)


def _holders() -> dict[str, float]:
    """GPUs by job. Empty where the cluster has no dashboard, which answers such questions."""
    held: defaultdict[str, float] = defaultdict(float)
    try:
        actors = state.list_actors(filters=[("state", "=", "ALIVE")], detail=True, limit=10_000)
        jobs = {job.job_id: job.submission_id or job.entrypoint for job in state.list_jobs(limit=10_000)}
    except (ray.exceptions.RayError, ConnectionError, RuntimeError):
        return {}
    for actor in actors:
        held[f"job {jobs.get(actor.job_id) or actor.job_id}"] += _count(actor.required_resources or {})
    return {job: count for job, count in held.items() if count}
