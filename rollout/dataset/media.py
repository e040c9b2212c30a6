"""The media files of datasets: decoded one and all, and compared by content.

Guarantee of `decoded`: a file that makes its decoders fail, die, hang or bloat costs that file alone, and what it says
of a file is what a run with that contract would find (rollout/frames/decoder_pool); it needs no cluster.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess

import cv2

from evidence.errors import UnreadableMedia
from evidence.sampling import SamplingContract
from evidence.types import FrameInfo
from rollout.frames.decoding import DIED, DecoderFailed, Turns, decode_with, examine, limit_memory, took_longer

POLL_S = 0.5


def decoded(
    paths: Sequence[str], contract: SamplingContract, workers: int, timeout_s: float, memory_bytes: int
) -> Iterator[tuple[str, FrameInfo | str]]:
    """(path, what is known of it or why it cannot be decoded), as they are done, `workers` at once.

    Each decoder that is tried on a file has a process of its own, with `timeout_s` and `memory_bytes`, as in a run.
    """
    waiting = deque(Turns(path) for path in paths)
    running: dict[Connection, tuple[Turns, ForkServerProcess, float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                turns = waiting.popleft()
                receiver, process = _start(turns, contract, memory_bytes)
                running[receiver] = turns, process, time.monotonic() + timeout_s
            wait(list(running), POLL_S)
            for receiver, (turns, process, until) in list(running.items()):
                if receiver.poll() or time.monotonic() > until:
                    del running[receiver]
                    found = _outcome(turns, receiver, timeout_s)
                    process.kill()
                    process.join()
                    receiver.close()
                    if found is None:
                        waiting.appendleft(turns)
                    else:
                        yield turns.path, found
    finally:
        for _, process, _ in running.values():
            process.kill()


def _start(turns: Turns, contract: SamplingContract, memory_bytes: int) -> tuple[Connection, ForkServerProcess]:
    # Not forked from this process: where it has threads, as beside Ray, a fork may wait for their locks forever.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # a new one has the decoders loaded
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_decode, args=(turns, contract, memory_bytes, sender), daemon=True)
    process.start()
    sender.close()
    return receiver, process


def _decode(turns: Turns, contract: SamplingContract, memory_bytes: int, sender: Connection) -> None:
    cv2.setNumThreads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders write there whatever level they are set to
    limit_memory(memory_bytes)
    try:
        sender.send(decode_with(turns.decoder, examine(turns.path), contract)[1])
    except UnreadableMedia as error:
        sender.send(error)


def _outcome(turns: Turns, receiver: Connection, timeout_s: float) -> FrameInfo | str | None:
    """What is known of the file, or why it cannot be decoded; None if it is the next decoder's turn."""
    try:
        found = receiver.recv() if receiver.poll() else DecoderFailed(turns.path, took_longer(timeout_s))
    except EOFError:
        found = DecoderFailed(turns.path, DIED)
    if isinstance(found, DecoderFailed):
        try:
            turns.failed(found)
            return None
        except UnreadableMedia as error:
            found = error
    return found.reason if isinstance(found, UnreadableMedia) else found


def shared(ours: Sequence[str], theirs: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """(digest -> files of both with that content, the files of either that could not be compared: they are not there,
    empty, or cannot be read). Files whose size no file of the other has are not read."""
    sizes = [{path: os.path.getsize(path) for path in paths if os.path.isfile(path)} for paths in (ours, theirs)]
    left_out = {path for path in (*ours, *theirs) if not any(of.get(path) for of in sizes)}
    alike = set(sizes[0].values()) & set(sizes[1].values())
    found: list[dict[str, list[str]]] = []
    for of in sizes:
        digests = defaultdict(list)
        for path in (path for path, size in of.items() if size in alike):
            try:
                digests[examine(path).digest].append(path)
            except UnreadableMedia:
                left_out.add(path)
        found.append(digests)
    both = {digest: sorted({*paths, *found[1][digest]}) for digest, paths in found[0].items() if digest in found[1]}
    return both, sorted(left_out)
