"""Decodes media files of a dataset, and compares media files by content.

Guarantees of `decoded` and `decoded_frames`: a file that makes its decoders fail, die, hang or exhaust memory affects
no other file; the result for a file is the one that a run with the same contract would get
(rollout/frames/decoder_pool). They need no cluster.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess

import cv2
import numpy as np

from evidence.errors import UnreadableMedia
from evidence.files import FORK_SERVER, require_room_for_sockets
from evidence.sampling import ALL, SamplingContract, Selection
from evidence.types import FrameInfo
from rollout.frames.config import FramesConfig
from rollout.frames.decoding import (
    DIED,
    DecoderFailed,
    Turns,
    decode_with,
    examine,
    identify,
    limit_memory,
    took_longer,
)
from rollout.frames.frame_folder import is_folder

POLL_S = 0.5

Decoded = tuple[np.ndarray, FrameInfo]  # uint8 [n, height, width, 3], RGB, and what they are


@dataclass(frozen=True)
class Job:
    """The decoding of one file. turns: its decoders. pixels: whether the frames are wanted, or only their FrameInfo."""

    turns: Turns
    selected: Selection = ALL
    pixels: bool = False


def decoded(
    rates: Mapping[str, float | None], contract: SamplingContract, workers: int, timeout_s: float, memory_bytes: int
) -> Iterator[tuple[str, FrameInfo | str]]:
    """Yield (path, its FrameInfo or the reason why it cannot be decoded) in order of completion, `workers` at a time.

    rates: path -> frames per second as the data states them, which only a folder of frames needs.
    Each attempt of a decoder on a file runs in its own process, limited to `timeout_s` and `memory_bytes`, as in a run.
    Raises BadInput if TMPDIR is too long for the processes' sockets.
    """
    jobs = [Job(Turns(path, folder=is_folder(path)), Selection(fps=fps)) for path, fps in rates.items()]
    for job, outcome in _outcomes(jobs, contract, workers, timeout_s, memory_bytes):
        yield job.turns.path, outcome if isinstance(outcome, str) else outcome[1]


def decoded_frames(
    wanted: Sequence[tuple[str, Selection]], contract: SamplingContract, config: FramesConfig
) -> Iterator[tuple[tuple[str, Selection], Decoded | str]]:
    """Yield ((path, selection), its frames or the reason why it cannot be decoded) in order of completion.

    As `decoded`, with the decoders, processes and limits of `config`. Its cache is not used.
    """
    jobs = [Job(Turns(path, config.decoder, is_folder(path)), selected, pixels=True) for path, selected in wanted]
    for job, outcome in _outcomes(jobs, contract, config.workers, config.timeout_s, config.worker_bytes):
        yield (job.turns.path, job.selected), outcome


def _outcomes(
    jobs: Sequence[Job], contract: SamplingContract, workers: int, timeout_s: float, memory_bytes: int
) -> Iterator[tuple[Job, Decoded | str]]:
    require_room_for_sockets(FORK_SERVER)
    waiting = deque(jobs)
    running: dict[Connection, tuple[Job, ForkServerProcess, float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.popleft()
                receiver, process = _start(job, contract, memory_bytes)
                running[receiver] = job, process, time.monotonic() + timeout_s
            wait(list(running), POLL_S)
            for receiver, (job, process, deadline) in list(running.items()):
                if receiver.poll() or time.monotonic() > deadline:
                    del running[receiver]
                    outcome = _outcome(job, receiver, timeout_s)
                    process.kill()
                    process.join()
                    receiver.close()
                    if outcome is None:
                        waiting.appendleft(job)
                    else:
                        yield job, outcome
    finally:
        for _, process, _ in running.values():
            process.kill()


def _start(job: Job, contract: SamplingContract, memory_bytes: int) -> tuple[Connection, ForkServerProcess]:
    # Not forked from this process: with threads, as in a Ray driver, a fork can deadlock on their locks.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # new processes start with the decoders loaded
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_decode, args=(job, contract, memory_bytes, sender), daemon=True)
    process.start()
    sender.close()
    return receiver, process


def _decode(job: Job, contract: SamplingContract, memory_bytes: int, sender: Connection) -> None:
    cv2.setNumThreads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders write to stderr regardless of their log level
    limit_memory(memory_bytes)
    try:
        frames, info = decode_with(job.turns.decoder, examine(job.turns.path), contract, job.selected)
        sender.send(info)
        # Not pickled: a copy of the frames would count against the limit on memory.
        sender.send_bytes(frames.reshape(-1).data if job.pixels else b"")
    except UnreadableMedia as error:
        sender.send(error)


def _outcome(job: Job, receiver: Connection, timeout_s: float) -> Decoded | str | None:
    """The file's frames (none of them if the job does not want pixels) with their FrameInfo, or the reason why it
    cannot be decoded; None if another decoder is to be tried."""
    path = job.turns.path
    try:
        result = receiver.recv() if receiver.poll() else DecoderFailed(path, took_longer(timeout_s))
        if isinstance(result, FrameInfo):
            width, height = result.size
            return np.frombuffer(receiver.recv_bytes(), np.uint8).reshape(-1, height, width, 3), result
    except EOFError:
        result = DecoderFailed(path, DIED)
    if isinstance(result, DecoderFailed):
        try:
            job.turns.failed(result)
            return None
        except UnreadableMedia as error:
            result = error
    return result.reason


def shared(ours: Sequence[str], theirs: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """(digest -> files with that content, for contents that both lists contain; files of either list that could not be
    compared, because they are missing, empty or unreadable). A file is read only if the other list has one of its
    size. A folder of frames counts as one file."""
    sizes = [{path: _size(path) for path in paths} for paths in (ours, theirs)]
    left_out = {path for path in (*ours, *theirs) if not any(by_path.get(path) for by_path in sizes)}
    common_sizes = set(sizes[0].values()) & set(sizes[1].values())
    by_digest: list[dict[str, list[str]]] = []
    for by_path in sizes:
        digests = defaultdict(list)
        for path in (path for path, size in by_path.items() if size in common_sizes):
            try:
                digests[examine(path).digest].append(path)
            except UnreadableMedia:
                left_out.add(path)
        by_digest.append(digests)
    first, second = by_digest
    both = {digest: sorted({*paths, *second[digest]}) for digest, paths in first.items() if digest in second}
    return both, sorted(left_out)


def _size(path: str) -> int:
    """Bytes; 0 for a file that is missing, empty or unreadable."""
    try:
        _, size, *_ = identify(path)
    except UnreadableMedia:
        return 0
    return size
