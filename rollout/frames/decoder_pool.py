"""Decodes in expendable processes: a file that hangs its decoder or exhausts its memory costs a sample, not the run.

Guarantees: at most `size` files are decoded at once; each call ends within its timeout, and its resources are free
then, because the process is killed; a process cannot allocate more than its limit; frames are owned by the caller,
because the decoder returns them, and outlive the decoder.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import ray

from evidence.sampling import SamplingContract, Selection, frame_key
from evidence.supervision import BudgetSpent, Lifecycle, RestartBudget, actor_class, started
from evidence.types import FrameInfo
from rollout.frames.decoders import VERSIONS
from rollout.frames.decoding import (
    DIED,
    OUT_OF_MEMORY,
    DecoderFailed,
    MediaFile,
    decode_with,
    examine,
    limit_memory,
    took_longer,
)
from rollout.frames.disk_cache import FrameCache

log = logging.getLogger(__name__)

START_TIMEOUT_S = 120.0
# Ray notices the loss of a node after about 15 s; actors placed there until then never start, whatever the file.
START_TRIES = 3
NOT_STARTED = "no decoder could be started for it"
SILENT = "the decoder did not respond"


class _ProcessLost(DecoderFailed):
    """The process of a decoder died during a call, or did not respond before it."""


@ray.remote(num_cpus=0)
class Decoder:
    """One process that only decodes."""

    def __init__(self, memory_bytes: int, cache: FrameCache | None):
        self.cache = cache
        self.meanwhile = ThreadPoolExecutor(1)
        self.meanwhile.submit(int).result()  # starts its thread while memory is not limited yet
        limit_memory(memory_bytes)

    def ready(self) -> None:
        pass

    def examine(self, path: str) -> MediaFile:
        return examine(path, self.meanwhile)

    def decode(
        self, name: str, media: MediaFile, contract: SamplingContract, selected: Selection
    ) -> tuple[np.ndarray, tuple[FrameInfo, bool, str | None]]:
        """(frames, (info, whether they came from the cache, error of reading or writing the cache)); see decode_with.
        Call with num_returns=2."""
        if self.cache is None:
            frames, info = decode_with(name, media, contract, selected)
            return frames, (info, False, None)
        # A full or unreadable disk costs time, but no frames.
        failure = None
        try:
            entry = self.cache.get(frame_key(media.digest, contract, VERSIONS[name], selected))
        except OSError as error:
            entry, failure = None, str(error)
        if entry is not None:
            return entry[0], (entry[1], True, None)
        frames, info = decode_with(name, media, contract, selected)
        try:
            self.cache.put(frames, info)
        except OSError as error:
            failure = str(error)
        return frames, (info, False, failure)


class DecoderPool:
    """A pool of decoders, each started when it is first needed. Use it from one event loop.

    Its methods raise UnreadableMedia: DecoderFailed if another decoder is worth trying, as after a timeout or the death
    of two processes. One that reached its memory limit is not used again, since what it still holds is unknown.
    """

    def __init__(self, size: int, timeout_s: float, memory_bytes: int, cache: FrameCache | None = None):
        self.timeout_s = timeout_s
        self.deaths = self.disk_failures = 0
        self._lifecycle = Lifecycle(
            create=lambda: actor_class(Decoder).remote(memory_bytes, cache),
            ready=lambda decoder: decoder.ready.remote(),
            kill=ray.kill,
            deaths=(ray.exceptions.RayActorError,),
        )
        self._free: asyncio.LifoQueue[Any] = asyncio.LifoQueue()  # None: a decoder that is not started yet
        for _ in range(size):
            self._free.put_nowait(None)

    async def examine(self, path: str) -> MediaFile:
        return await self._call(path, "examine", path)

    async def decode(
        self, name: str, media: MediaFile, contract: SamplingContract, selected: Selection
    ) -> tuple[ray.ObjectRef, FrameInfo, bool]:
        """(ref to the frames, info, whether they came from the disk cache); see decode_with."""
        arguments = (name, media, contract, selected)
        frames, (info, cached, failure) = await self._call(media.path, "decode", *arguments, returns=2)
        if failure is not None:
            if not self.disk_failures:
                log.warning("frames.cache_dir: %s; further failures are only counted", failure)
            self.disk_failures += 1
        return frames, info, cached

    async def _ready(self, decoder: Any) -> Any:
        """A decoder that responds: `decoder` or, if it has died while idle (as with its node), a new one, so that the
        death is not blamed on the next file. Raises TimeoutError, and BudgetSpent if START_TRIES in a row died."""
        budget = RestartBudget(START_TRIES - 1)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                if decoder is not None:
                    try:
                        await decoder.ready.remote()
                        return decoder
                    except ray.exceptions.RayActorError:
                        budget.spend()
                return await started(self._lifecycle, budget)
        finally:
            self.deaths += budget.used

    async def _call(self, path: str, method: str, *args: Any, returns: int = 1) -> Any:
        """What a decoder returns. A call is repeated once if its process dies or was found silent: that may be chance,
        as where a process was killed, and no fault of the file."""
        try:
            return await self._called(path, method, *args, returns=returns)
        except _ProcessLost:
            return await self._called(path, method, *args, returns=returns)

    async def _called(self, path: str, method: str, *args: Any, returns: int) -> Any:
        idle, reason = await self._free.get(), NOT_STARTED
        decoder, failure = idle, DecoderFailed
        try:
            decoder = await self._ready(idle)
            reason = DIED
            async with asyncio.timeout(self.timeout_s):
                refs = getattr(decoder, method).options(num_returns=returns).remote(*args)
                return await (_whole(*refs) if returns == 2 else refs)
        except (TimeoutError, BudgetSpent, ray.exceptions.RayError) as error:
            if isinstance(error, ray.exceptions.RayTaskError):
                if not isinstance(error.cause, MemoryError):
                    # Ray wraps the error with the worker's stack trace; the cause is the error itself.
                    raise error.cause from None
                reason = OUT_OF_MEMORY
            elif isinstance(error, ray.exceptions.RayActorError):
                failure = _ProcessLost
            elif isinstance(error, TimeoutError) and reason == DIED:
                reason = took_longer(self.timeout_s)
            elif isinstance(error, TimeoutError) and idle is not None:
                reason, failure = SILENT, _ProcessLost
            self.deaths += 1
            _kill(decoder)
            decoder = None
            log.warning("%s: %s; the decoder is restarted", path, reason)
            raise failure(path, reason) from None
        except BaseException:  # the caller gave up; its call must not delay the next file
            _kill(decoder)
            decoder = None
            raise
        finally:
            self._free.put_nowait(decoder)


async def _whole(large: ray.ObjectRef, small: ray.ObjectRef) -> tuple[ray.ObjectRef, Any]:
    """A large result by reference, once a small one of the same call is here. The error of a call that fails is fetched
    from both: Ray reports one that nobody fetched, with a stack trace on stderr."""
    try:
        return large, await small
    except ray.exceptions.RayTaskError:
        with contextlib.suppress(ray.exceptions.RayTaskError):
            await large
        raise


def _kill(decoder: Any) -> None:
    if decoder is not None:
        ray.kill(decoder)
