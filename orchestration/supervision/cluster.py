"""Joining a Ray cluster, or starting one for this process alone.

Guarantees: the requested object store is checked against the machine's memory before anything starts; a cluster that
this process started ends with it, however it ends, and leaves only its logs; a cluster that it joined keeps running.
The loss of Ray itself ends the process with one line.
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray._private import services

from evidence.errors import BadInput
from evidence.files import require_room_for_sockets
from evidence.limits import Limits
from orchestration.diagnosis.gpu_facts import read_gpus
from orchestration.leftovers import extensions_folder
from orchestration.machine import require_memory, require_short_ray_folder
from orchestration.reporting.awaiting import awaiting
from orchestration.streams import say
from orchestration.supervision.gpu_wait import FEWER, KEYS, wait_for_gpus
from orchestration.supervision.local_session import PREFIX, WATCHER, LocalSession
from orchestration.supervision.node_checks import require_equal_nodes
from orchestration.supervision.ray_loss import ended_with_ray
from orchestration.supervision.session_end import end_left_behind

NAMESPACE = "ser"
# Inherited by every actor, in each of which these libraries would otherwise start one thread per core.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
ROOT = Path(__file__).parents[2]
# Children of this process that go on until it ends.
_watchers: list[subprocess.Popen[bytes]] = []


@contextlib.contextmanager
def start_ray(
    object_store_gib: float, gpus: float = 0.0, paths: Sequence[str] = (), start_s: float = Limits.start_s
) -> Iterator[None]:
    """Join the cluster named by RAY_ADDRESS (as in `ray job submit`), or start a local one with this object store.

    Before a local one starts, what killed runs of this account left behind is ended and removed.
    Raises BadInput if the object store does not fit this machine, if TMPDIR is too long for Ray's sockets, if the
    cluster cannot be joined, if a node of it has a smaller store, or other packages, code or `paths` than this
    one, or if it has fewer than `gpus` GPUs for `start_s` seconds. Raises RunFailed if others hold them for so long.
    """
    address = os.environ.get("RAY_ADDRESS")
    if address is not None:
        with _joined_ray(address), ended_with_ray(started_here=False):
            wait_for_gpus(gpus, start_s)
            _require_stores(object_store_gib)
            with awaiting("what the cluster's nodes have"):
                require_equal_nodes(paths)
            yield
        return
    _require_gpus_here(gpus)
    _end_left_behind()
    require_memory(object_store_gib)
    require_short_ray_folder()
    os.environ.update(ONE_THREAD)
    with _session() as session, _local_ray(object_store_gib), ended_with_ray(started_here=True) as folder:
        if folder is not None:
            session.with_ray(folder)
        yield


@contextlib.contextmanager
def _joined_ray(address: str) -> Iterator[None]:
    try:
        with awaiting("Ray"):
            _init()
    except (ConnectionError, ValueError, ray.exceptions.AuthenticationError) as error:
        raise BadInput(
            f"RAY_ADDRESS = {address}: {str(error).splitlines()[0]}; must be HOST:PORT of a head that runs, with "
            "RAY_AUTH_MODE=token and the head's ~/.ray/auth_token where it requires a token (docs/cluster.md)"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _local_ray(object_store_gib: float) -> Iterator[None]:
    try:
        with awaiting("Ray"):
            store = int(object_store_gib * 2**30)
            with _own_process_groups():
                _init(address="local", object_store_memory=store, include_dashboard=False)
        yield
    finally:
        ray.shutdown()


def _init(**options: Any) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    ray.init(namespace=NAMESPACE, logging_level=logging.ERROR, log_to_driver=False, **options)
    if callable(handler):  # Ray has put its own in its place
        signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _own_process_groups() -> Iterator[None]:
    """During the block, start Ray's servers in process groups of their own, for which Ray has no option. In the group
    of the driver they would get what `timeout` and `kill %1` send to it, and end before a checkpoint is saved."""
    popen = services.ConsolePopen
    services.ConsolePopen = partial(popen, process_group=0)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        services.ConsolePopen = popen  # type: ignore[misc]


def _require_stores(object_store_gib: float) -> None:
    """Require of each node the store that the config counts on: any of them may hold frames and two weight versions."""
    stores = {
        node["NodeManagerAddress"]: node["Resources"].get("object_store_memory", 0.0) / 2**30
        for node in ray.nodes()
        if node["Alive"]
    }
    address, least = min(stores.items(), key=lambda store: store[1])
    if least < object_store_gib:
        raise BadInput(
            f"cluster.object_store_gib = {object_store_gib:g}: the joined cluster's node {address} has an object store "
            f"of {least:.2f} GiB; start Ray there with a larger --object-store-memory, or lower cluster.frames_gib and "
            "cluster.object_store_gib"
        )


def _require_gpus_here(gpus: float) -> None:
    """Require the GPUs of this machine before a Ray of its own starts."""
    if not gpus:
        return
    here = read_gpus().gpus
    if gpus > len(here):
        names = ", ".join(f"{count} x {name}" for name, count in Counter(gpu.name for gpu in here).items())
        raise BadInput(f"{KEYS}: need {gpus:g} GPUs, this machine has {names or 0}; {FEWER}")


def _end_left_behind() -> None:
    """End what killed runs left whose watcher was killed too."""
    for session, removed in end_left_behind(extensions_folder()):
        say(f"removed what the killed run of process {session.driver.pid} left: {removed}")


@contextlib.contextmanager
def _session() -> Iterator[LocalSession]:
    """A session of this process, which a watcher ends after this process. Its folder is TMPDIR during the block."""
    before = {name: os.environ.get(name) for name in ("TMPDIR", "RAY_TMPDIR", "TORCHINDUCTOR_CACHE_DIR")}
    common = tempfile.gettempdir()
    require_room_for_sockets(f"/{PREFIX}xxxxxxxx/{uuid.uuid4()}")  # as vLLM names its sockets
    session = LocalSession.begin()
    with (session.folder / "watcher.err").open("wb") as errors:
        _watchers.append(
            subprocess.Popen(
                [sys.executable, "-m", WATCHER, session.folder],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        )
    # Ray's logs and compiled code outlive the session.
    os.environ.setdefault("RAY_TMPDIR", common)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{common}/torchinductor_{_user()}")
    os.environ["TMPDIR"] = tempfile.tempdir = str(session.folder)
    try:
        yield session
    finally:
        tempfile.tempdir = common
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _user() -> str:
    """This account's name as PyTorch spells it in the name of its cache of compiled code."""
    try:
        return re.sub(r'[\\/:*?"<>|]', "_", getpass.getuser())
    except (KeyError, OSError):  # an account without a name, as in some containers
        return f"uid_{os.getuid()}"
