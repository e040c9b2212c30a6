"""Decoding in processes that can be lost: a file that hangs or bloats its decoder costs its sample, not the run.

Guarantees: at most `size` files are decoded at once; each call ends within its timeout, and what it occupied is free
then, since the process is killed; a process cannot allocate beyond its limit; frames belong to the caller, since the
decoder returns them, and outlive it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import ray

from evidence.sampling import SamplingContract, frame_key
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
# Ray misses a node some 15 s after it is gone; what it places there meanwhile never starts, and no file is at fault.
START_TRIES = 3
NOT_STARTED = "no decoder could be started for it"


@ray.remote(num_cpus=0)
class Decoder:
    """One process that does nothing but decode."""

    def __init__(self, memory_bytes: int, cache: FrameCache | None):
        self.cache = cache
        self.meanwhile = ThreadPoolExecutor(1)
        self.meanwhile.submit(int).result()  # its thread starts while there is memory for it
        limit_memory(memory_bytes)

    def ready(self) -> None:
        pass

    def examine(self, path: str) -> MediaFile:
        return examine(path, self.meanwhile)

    def decode(
        self, name: str, media: MediaFile, contract: SamplingContract, key_times: Sequence[float]
    ) -> tuple[np.ndarray, tuple[FrameInfo, bool, str | None]]:
        """(frames, (info, whether they came from the cache, why the cache could not read or keep them)); see
        decode_with. Call with num_returns=2."""
        if self.cache is None:
            frames, info = decode_with(name, media, contract, key_times)
            return frames, (info, False, None)
        # A full disk, or one that lets nobody read, costs time, but no frames.
        failure = None
        try:
            found = self.cache.get(frame_key(media.digest, contract, VERSIONS[name], key_times))
        except OSError as error:
            found, failure = None, str(error)
        if found is not None:
            return found[0], (found[1], True, None)
        frames, info = decode_with(name, media, contract, key_times)
        try:
            self.cache.put(frames, info)
        except OSError as error:
            failure = str(error)
        return frames, (info, False, failure)


class DecoderPool:
    """Decoders, started when first needed. To be used from one event loop.

    Its methods raise UnreadableMedia: DecoderFailed where another decoder is worth trying, as after a timeout or a
    death. A process that reached its limit counts as dead: what it still holds is not known.
    """

    def __init__(self, size: int, timeout_s: float, memory_bytes: int, cache: FrameCache | None = None):
        self.timeout_s = timeout_s
        self.deaths = self.disk_failures = 0
        self._new = lambda: Decoder.remote(memory_bytes, cache)
        self._free: asyncio.LifoQueue[Any] = asyncio.LifoQueue()  # None is a decoder yet to be started
        for _ in range(size):
            self._free.put_nowait(None)

    async def examine(self, path: str) -> MediaFile:
        return await self._call(path, "examine", path)

    async def decode(
        self, name: str, media: MediaFile, contract: SamplingContract, key_times: Sequence[float]
    ) -> tuple[ray.ObjectRef, FrameInfo, bool]:
        """(ref to the frames, info, whether they came from the cache); see decode_with."""
        arguments = (name, media, contract, key_times)
        frames, (info, cached, failure) = await self._call(media.path, "decode", *arguments, returns=2)
        if failure is not None:
            if not self.disk_failures:
                log.warning("frames.cache_dir: %s; further failures are only counted", failure)
            self.disk_failures += 1
        return frames, info, cached

    async def _ready(self, decoder: Any) -> Any:
        """A decoder that answers: this one or, if it has died while it was idle (as with its node), a new one, so that
        no file is blamed for it. Raises TimeoutError, and RayActorError if START_TRIES in a row died."""
        decoder = decoder or self._new()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                for left in reversed(range(START_TRIES)):
                    try:
                        await decoder.ready.remote()
                        break
                    except ray.exceptions.RayActorError:
                        if not left:
                            raise
                    self.deaths += 1
                    decoder = self._new()
        except BaseException:
            _kill(decoder)
            raise
        return decoder

    async def _call(self, path: str, method: str, *args: Any, returns: int = 1) -> Any:
        decoder, reason = await self._free.get(), NOT_STARTED
        try:
            decoder = await self._ready(decoder)
            reason = DIED
            async with asyncio.timeout(self.timeout_s):
                refs = getattr(decoder, method).options(num_returns=returns).remote(*args)
                return (refs[0], await refs[1]) if returns == 2 else await refs
        except (TimeoutError, ray.exceptions.RayError) as error:
            if isinstance(error, TimeoutError) and reason == DIED:
                reason = took_longer(self.timeout_s)
            elif isinstance(error, ray.exceptions.RayTaskError):
                if not isinstance(error.cause, MemoryError):
                    # Ray's own wrapper holds the worker's stack trace; the cause is the error that was raised there.
                    raise error.cause from None
                reason = OUT_OF_MEMORY
            self.deaths += 1
            decoder = _kill(decoder)
            log.warning("%s: %s; it is started anew", path, reason)
            raise DecoderFailed(path, reason) from None
        except BaseException:  # the caller gave up: what still runs must not delay the next file
            decoder = _kill(decoder)
            raise
        finally:
            self._free.put_nowait(decoder)


def _kill(decoder: Any) -> None:
    if decoder is not None:
        ray.kill(decoder)
