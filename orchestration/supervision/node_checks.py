"""Whether every node of a joined cluster has what the driver's node has: packages, code, models and data.

A node that lacks a file would fail when an actor is placed there, which may be hours into a run. Files are compared by
their sizes and beginnings, so that a check of large models takes seconds. What differs is looked at again for a minute,
since other nodes see a new file on NFS late.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from evidence.digests import DIGESTED
from evidence.errors import BadInput
from orchestration.diagnosis.machine_facts import PACKAGES
from orchestration.machine import version

MISSING = "missing"
CODE = "the code of ser"
ROOT = Path(__file__).parents[2]
FOLDERS = ("evidence", "rollout", "referee", "learner", "evaluation", "orchestration")
BEGINNING = 2**20  # bytes
SETTLE_S, POLL_S = 60.0, 5.0
LIMIT_S = 180.0  # a node's first worker starts in seconds; a file system that hangs does not answer


def require_equal_nodes(paths: Sequence[str]) -> None:
    """Raises BadInput, which names the first node that lacks something or has it otherwise than this one."""
    here = ray.get_runtime_context().get_node_id()
    others = {n["NodeID"]: n["NodeManagerAddress"] for n in ray.nodes() if n["Alive"] and n["NodeID"] != here}
    if not others:
        return
    own, remote = node_facts(paths), ray.remote(num_cpus=0, max_retries=0)(node_facts)

    def ask(node: str) -> Any:
        return remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(paths)

    asked = {node: ask(node) for node in others}  # all at once
    for node, address in others.items():
        found, end = difference(own, _answer(address, asked[node])), time.monotonic() + SETTLE_S
        while found and not found.startswith(PACKAGES) and time.monotonic() < end:
            time.sleep(POLL_S)
            found = difference(own, _answer(address, ask(node)))
        if found:
            raise BadInput(f"node {address}: {found}")


def _answer(address: str, facts: Any) -> dict[str, str]:
    try:
        return dict(ray.get(facts, timeout=LIMIT_S))
    except ray.exceptions.GetTimeoutError:
        reason = f"has not answered within {LIMIT_S:g} s; its file systems may hang"
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        reason = f"cannot be compared ({str(cause).splitlines()[-1]:.200}); is the same code installed there?"
    raise BadInput(f"node {address}: {reason}")


def node_facts(paths: Iterable[str]) -> dict[str, str]:
    """What this node has: the version of each package, a digest of the code, and one of each file of `paths`."""
    facts = {package: version(package) or MISSING for package in PACKAGES}
    files = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("[!.]*.py"))]
    facts[CODE] = hashlib.sha256("".join(map(_state, files)).encode()).hexdigest()
    for path in map(Path, paths):
        facts |= {str(file): _state(file) for file in _files(path)}
    return facts


def difference(own: dict[str, str], other: dict[str, str]) -> str:
    """The first difference between another node and this one, with its remedy; "" if they are equal."""
    for subject, here in own.items():
        there = other.get(subject, MISSING)
        if there == here:
            continue
        if subject in PACKAGES:
            return f"{subject} {there}, and {here} on the driver's node; install the same environment on both"
        if there == MISSING:
            return f"{subject}: is not there, or cannot be read; it must be at the same path on every node"
        return f"{subject}: differs from that on the driver's node; it must be the same on every node"
    return ""


def _files(path: Path) -> list[Path]:
    """The file, or those of a model's folder that decide what it computes."""
    return sorted(file for file in path.iterdir() if file.suffix in DIGESTED) if path.is_dir() else [path]


def _state(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            beginning = stream.read(BEGINNING)
        return f"{file.stat().st_size} {hashlib.sha256(beginning).hexdigest()}"
    except OSError:
        return MISSING
