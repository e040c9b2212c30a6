"""Waits until a joined cluster has the GPUs of a run free, and says meanwhile how many are missing and who holds them.

The nodes of a Slurm job join one after the other, and other jobs end. Nothing is reserved: of two runs that wait for
the same GPUs, the one that places its actors later waits on, or ends when `limits.start_s` is over.
"""

from __future__ import annotations

import math
import re
import time
from collections import defaultdict
from collections.abc import Mapping

import ray
from ray.util import state
from ray.util.state.exception import RayStateApiException

from evidence.errors import BadInput, RunFailed
from orchestration.reporting.awaiting import awaiting
from orchestration.streams import say

POLL_S = 2.0
ASK_S = 30.0  # between two questions for the holders, which are answered by the cluster's dashboard
ANSWER_S = 5
KEYS = "cluster.gpus_per_engine, gpus_per_rank"
FEWER = "lower learner.ranks, cluster.rollout_engines or model.referee.replicas, or join a cluster that has them"
# What an actor in a placement group holds; the same with a bundle's number is the same GPU.
HELD = re.compile(r"GPU(_group_[0-9a-f]+)?$")


def wait_for_gpus(gpus: float, limit_s: float) -> None:
    """Return as soon as `gpus` GPUs are free. After `limit_s` seconds, raises BadInput if the cluster has fewer, and
    RunFailed if others hold them."""
    if not (missing := _missing(gpus)):
        return
    began, asked, said = time.monotonic(), -math.inf, ""
    with awaiting(f"{gpus:g} free GPUs"):
        while missing:
            if missing != said and time.monotonic() - asked >= ASK_S:
                held, said, asked = _holders(), missing, time.monotonic()
                say(f"{gpus:g} GPUs are needed: {missing}{held}")
            if time.monotonic() - began >= limit_s:
                too_few = gpus > _count(ray.cluster_resources())
                remedy = FEWER if too_few else "end what holds them, or raise limits.start_s"
                reason = f"{KEYS}: need {gpus:g} GPUs, {missing} after {limit_s:g} s; {remedy}"
                raise BadInput(reason) if too_few else RunFailed(reason)
            time.sleep(POLL_S)
            missing = _missing(gpus)


def _missing(gpus: float) -> str:
    total, free = _count(ray.cluster_resources()), _count(ray.available_resources())
    if gpus > total:
        return f"the cluster has {total:g}"
    return f"{free:g} of the cluster's {total:g} are free" if gpus > free else ""


def _count(resources: Mapping[str, float]) -> float:
    return resources.get("GPU", 0.0)


def _holders() -> str:
    """Which jobs hold GPUs; nothing where none does, and where the dashboard does not answer."""
    try:
        actors = state.list_actors(filters=[("state", "=", "ALIVE")], detail=True, limit=10_000, timeout=ANSWER_S)
        jobs = {job.job_id: job.submission_id or job.entrypoint for job in state.list_jobs(timeout=ANSWER_S)}
    except (ray.exceptions.RayError, RayStateApiException, ConnectionError, RuntimeError):
        return ""
    held: defaultdict[str, float] = defaultdict(float)
    for actor in actors:
        gpus = [count for name, count in (actor.required_resources or {}).items() if HELD.match(name)]
        held[jobs.get(actor.job_id) or actor.job_id] += max(gpus, default=0.0)
    listed = ", ".join(f"{count:g} by job {job}" for job, count in sorted(held.items()) if count)
    return f", held {listed}" if listed else ""
