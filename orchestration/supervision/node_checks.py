"""Whether every node of a joined cluster has what the driver's node has: packages, code, models and data.

A node that lacks a file would fail when an actor is placed there, which may be hours into a run. Files are compared by
their sizes and beginnings, so that a check of large models takes seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from evidence.errors import BadInput
from orchestration.diagnosis.machine_facts import PACKAGES
from orchestration.machine import version

MISSING = "missing"
CODE = "the code of ser"
ROOT = Path(__file__).parents[2]
FOLDERS = ("evidence", "rollout", "referee", "learner", "evaluation", "orchestration")
BEGINNING = 2**20  # bytes
LIMIT_S = 180.0  # a node's first worker starts in seconds; a file system that hangs does not answer


def require_equal_nodes(paths: Sequence[str]) -> None:
    """Raises BadInput, which names the first node that lacks something or has it otherwise than this one."""
    here = ray.get_runtime_context().get_node_id()
    others = {n["NodeID"]: n["NodeManagerAddress"] for n in ray.nodes() if n["Alive"] and n["NodeID"] != here}
    if not others:
        return
    own, remote = node_facts(paths), ray.remote(num_cpus=0, max_retries=0)(node_facts)
    seen = [
        remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(paths)
        for node in others
    ]
    ray.wait(seen, num_returns=len(seen), timeout=LIMIT_S)
    for address, facts in zip(others.values(), seen):
        if found := difference(own, _answer(address, facts)):
            raise BadInput(f"node {address}: {found}")


def _answer(address: str, facts: Any) -> dict[str, str]:
    try:
        return dict(ray.get(facts, timeout=0))
    except ray.exceptions.GetTimeoutError:
        reason = f"has not said within {LIMIT_S:g} s what it has; its file systems may hang"
    except ray.exceptions.RayError as error:
        reason = f"cannot say what it has ({str(error).splitlines()[0]:.200}); is this code installed there?"
    raise BadInput(f"node {address}: {reason}")


def node_facts(paths: Iterable[str]) -> dict[str, str]:
    """What this node has: the version of each package, digests of the code and of each path."""
    packages = {package: version(package) or MISSING for package in PACKAGES}
    code = _digest(ROOT, (file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))))
    return packages | {CODE: code} | {path: _state(Path(path)) for path in paths}


def difference(own: dict[str, str], other: dict[str, str]) -> str:
    """The first thing that another node has otherwise than this one, and what would be right; "" if there is none."""
    for subject, here in own.items():
        there = other[subject]
        if there == here:
            continue
        if subject in PACKAGES:
            return f"{subject} {there}, and {here} on the driver's node; install the same environment on both"
        if there == MISSING:
            return f"{subject}: is not there, or cannot be read; it must be at the same path on every node"
        return f"{subject}: differs from that on the driver's node; it must be the same on every node"
    return ""


def _state(path: Path) -> str:
    try:
        return _digest(path.parent, _files(path))
    except OSError:
        return MISSING


def _files(path: Path) -> Iterator[Path]:
    """The file, or the folder's own files without hidden ones."""
    if path.is_dir():
        yield from sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    else:
        yield path


def _digest(root: Path, files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            head = stream.read(BEGINNING)
        digest.update(f"{file.relative_to(root)}\0{file.stat().st_size}\0".encode() + head)
    return digest.hexdigest()
