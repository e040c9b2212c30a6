"""The media files of datasets: decoded one and all, and compared by content.

Guarantee of `decoded`: a file that makes its decoder fail, die or hang costs that file alone.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess

import cv2

from evidence.errors import UnreadableMedia
from evidence.sampling import SamplingContract
from evidence.types import FrameInfo
from rollout.frames import decode, examine

TIMEOUT_S = 60.0
POLL_S = 0.5


def decoded(paths: Sequence[str], workers: int, timeout_s: float = TIMEOUT_S) -> Iterator[tuple[str, FrameInfo | str]]:
    """(path, what is known of it or why it cannot be decoded), as they are done, each in a process of its own."""
    context = multiprocessing.get_context("fork")  # a new one has the decoder loaded
    waiting = deque(paths)
    running: dict[Connection, tuple[str, ForkProcess, float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_decode, args=(waiting[0], sender), daemon=True)
                process.start()
                sender.close()
                running[receiver] = (waiting.popleft(), process, time.monotonic() + timeout_s)
            done = wait(list(running), POLL_S)
            for receiver, (path, process, until) in list(running.items()):
                if receiver in done or time.monotonic() > until:
                    del running[receiver]
                    found = _result(receiver) if receiver in done else f"the decoder took more than {timeout_s:.0f} s"
                    process.kill()
                    process.join()
                    receiver.close()
                    yield path, found
    finally:
        for _, process, _ in running.values():
            process.kill()


def _decode(path: str, sender: Connection) -> None:
    cv2.setNumThreads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders write there whatever level they are set to
    try:
        sender.send(decode(path, SamplingContract())[1])
    except UnreadableMedia as error:
        sender.send(error.reason)


def _result(receiver: Connection) -> FrameInfo | str:
    try:
        return receiver.recv()
    except EOFError:
        return "the decoder died"


def shared(ours: Sequence[str], theirs: Sequence[str]) -> dict[str, list[str]]:
    """Digest -> files of both with that content. Files whose size no file of the other has are not read.

    Files that are empty or cannot be read are left out: a check reports them by name.
    """
    sizes = [{path: os.path.getsize(path) for path in paths if os.path.isfile(path)} for paths in (ours, theirs)]
    alike = set(sizes[0].values()) & set(sizes[1].values())
    found: list[dict[str, list[str]]] = []
    for of in sizes:
        digests = defaultdict(list)
        for path in (path for path, size in of.items() if size in alike):
            with suppress(UnreadableMedia):
                digests[examine(path).digest].append(path)
        found.append(digests)
    return {digest: sorted({*paths, *found[1][digest]}) for digest, paths in found[0].items() if digest in found[1]}
