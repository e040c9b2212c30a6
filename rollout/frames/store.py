"""Decoded frames in the object store, each video decoded once (promise 6).

Guarantees: frames are addressed by the file's content, so a file is decoded once while its frames are kept, however
many groups request it and under whatever path; a changed file is decoded again; a lease reserves its bytes before
decoding, so the store stays within its budget, and requests that do not fit queue in FIFO order
(rollout/frames/budget); frames are owned by the driver; a decoder that fails costs one sample (decoder_pool).

Frames lost with a node are detected by their consumer (`FrameStore.lost`) and decoded again within the bytes that their
leases still hold (`Lease.renew`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Coroutine, Iterable
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import ray

from evidence.errors import UnreadableMedia
from evidence.sampling import ALL, SamplingContract, Selection, most_bytes
from evidence.types import FrameInfo
from rollout.frames.budget import Budget
from rollout.frames.config import FramesConfig
from rollout.frames.decoder_pool import DecoderPool
from rollout.frames.decoding import DecoderFailed, MediaFile, Turns, identify
from rollout.frames.disk_cache import FrameCache

log = logging.getLogger(__name__)

# Key of decoded frames: (file digest, selection). A store has one contract and one order of decoders.
Key = tuple[str, Selection]
Frames = tuple[ray.ObjectRef, FrameInfo]
T = TypeVar("T")


class Lease:
    """Frames that stay in the object store until `release`. frames: ref to uint8 [n, H, W, 3]; info: about them."""

    def __init__(self, store: FrameStore, number: int, file: MediaFile, selected: Selection, frames: Frames):
        self.frames: Any
        self.frames, self.info = frames
        self._store, self._number, self._file, self._selected = store, number, file, selected

    async def renew(self) -> None:
        """Decode again frames that were reported as lost (`FrameStore.lost`), provided that the file has not changed.
        Another decoder may have to be used, which changes `info.key`. Raises UnreadableMedia."""
        self.frames, self.info = await self._store._renewed(self._number, self._file, self._selected)

    def release(self) -> None:
        self.frames = None  # any remaining reference would keep the bytes in the object store
        self._store._release(self._number)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: Any) -> None:
        self.release()


class FrameStore:
    """Frames by content, with least-recently-used eviction. Use it from one event loop."""

    def __init__(self, contract: SamplingContract, budget_bytes: int, config: FramesConfig, holders: int = 1):
        """`holders`: number of leases that must fit the budget at once. A video that could need more than its share of
        the budget is refused."""
        self.contract, self.config, self.share_bytes = contract, config, budget_bytes // holders
        self.counts: Counter[str] = Counter()
        cache = (
            FrameCache(Path(config.cache_dir).absolute(), int(config.cache_gib * 2**30)) if config.cache_dir else None
        )
        self._pool = DecoderPool(config.workers, config.timeout_s, config.worker_bytes, cache)
        self._budget = Budget(budget_bytes, self._on_grant, self._on_evict)
        self._numbers = count()
        self._grants: dict[int, asyncio.Future[None]] = {}
        self._loading: dict[int, asyncio.Task[Any]] = {}  # the latest of each lease, done or not
        self._files: dict[str, MediaFile] = {}
        self._held: dict[Key, Frames] = {}
        self._lost: set[str] = set()
        self._decoding: dict[Key, asyncio.Task[None]] = {}
        self._wanted: deque[tuple[str, Selection]] = deque()
        self._ahead: dict[int, asyncio.Task[None]] = {}

    async def lease(self, path: str, selected: Selection = ALL) -> Lease:
        """Lease the frames of a file, decoding it if necessary. Leases are granted in the order of the calls.

        Raises UnreadableMedia; a later call tries again.
        """
        bound, file = self._bound(path, selected), self._known(path)
        number = next(self._numbers)
        granted = self._grants[number] = asyncio.get_running_loop().create_future()
        self._budget.ask(number, bound, file and (file.digest, file.shown(selected)))
        self.counts["waits"] += not granted.done()
        try:
            await granted
            return await self._shielded(number, self._load(number, path, file, selected))
        except BaseException:
            self._release(number)
            raise
        finally:
            del self._grants[number]

    def lost(self, error: Exception) -> bool:
        """Whether `error`, raised to a consumer of frames, means that the frames were lost with their node. If so, they
        are dropped from the store and counted once, however many consumers report it."""
        if not isinstance(error, ray.exceptions.ObjectLostError):
            return False
        for key, (frames, _) in self._held.items():
            if frames.hex() == error.object_ref_hex:
                del self._held[key]
                self._lost.add(frames.hex())
                break
        return error.object_ref_hex in self._lost

    def prefetch(self, wanted: Iterable[tuple[str, Selection]]) -> None:
        """Decode in advance what fits the budget besides the bytes in use. `wanted`: (path, selection), soonest first;
        replaces the previous list."""
        self._wanted = deque(wanted)
        for path, selected in reversed(self._wanted):  # frames needed soonest are evicted last
            if path in self._files:
                self._budget.touch((self._files[path].digest, self._files[path].shown(selected)))
        self._prefetch_next()

    def _prefetch_next(self) -> None:
        # One decoder stays free for leases.
        while self._wanted and len(self._ahead) < max(1, self.config.workers - 1):
            path, selected = self._wanted[0]
            try:
                bound = self._bound(path, selected)
            except UnreadableMedia:  # a lease on the file raises it again
                self._wanted.popleft()
                continue
            file = self._files.get(path)  # as last seen; whether it has changed is checked outside the event loop
            if file is not None and (file.digest, file.shown(selected)) in (*self._held, *self._decoding):
                self._wanted.popleft()
                continue
            number = next(self._numbers)
            if not self._budget.try_now(number, bound):
                return
            self._wanted.popleft()
            self._ahead[number] = asyncio.create_task(self._load_ahead(number, path, selected))

    async def _load_ahead(self, number: int, path: str, selected: Selection) -> None:
        try:
            file = await asyncio.to_thread(self._known, path)
            await self._load(number, path, file, selected)
            self.counts["prefetched"] += 1
        except UnreadableMedia as error:  # a lease on the file raises it again
            log.info("prefetch: %s", error)
        finally:
            self._budget.release(number)
            del self._ahead[number]
        self._prefetch_next()

    @property
    def no_room(self) -> int:
        """The number of leases that wait for room in the store."""
        return self._budget.waiting

    def counters(self) -> dict[str, int]:
        names = ("decoded", "second_decoder", "from_disk", "prefetched", "waits", "evicted")
        return {
            **{name: self.counts[name] for name in names},
            "lost": len(self._lost),
            "decoder_deaths": self._pool.deaths,
            "disk_failures": self._pool.disk_failures,
            "bytes": self._budget.live,
        }

    def _bound(self, path: str, selected: Selection) -> int:
        bound = most_bytes(self.contract, selected)
        if bound > self.share_bytes:
            raise UnreadableMedia(
                path, f"its frames may need {bound} bytes, above its share ({self.share_bytes}) of cluster.frames_gib"
            )
        return bound

    def _known(self, path: str) -> MediaFile | None:
        """The file, if it was hashed before and has not changed since. Raises UnreadableMedia if it is missing."""
        identity = identify(path)
        file = self._files.get(path)
        return file if file is not None and file.identity == identity else None

    async def _load(self, number: int, path: str, file: MediaFile | None, selected: Selection) -> Lease:
        if file is None:
            file = self._files[path] = await self._pool.examine(path)
        selected = file.shown(selected)
        return Lease(self, number, file, selected, await self._frames(number, file, selected))

    async def _renewed(self, number: int, file: MediaFile, selected: Selection) -> Frames:
        return await self._shielded(number, self._frames(number, file, selected))

    async def _shielded(self, number: int, load: Coroutine[Any, Any, T]) -> T:
        """Await `load` for a lease. If the caller is cancelled, loading continues with its bytes reserved."""
        self._loading[number] = loading = asyncio.create_task(load)
        return await asyncio.shield(loading)

    def _release(self, number: int) -> None:
        """Release the bytes of a lease, once no decoding for it is in progress."""
        loading = self._loading.get(number)
        if loading is not None and not loading.done():
            loading.add_done_callback(lambda _: self._release(number))
            return
        self._loading.pop(number, None)
        self._budget.release(number)

    async def _frames(self, number: int, file: MediaFile, selected: Selection) -> Frames:
        """The frames of a granted lease, which then holds their entry of the budget."""
        key = (file.digest, selected)
        while key not in self._held:
            if key not in self._decoding:
                self._decoding[key] = asyncio.create_task(self._hold(key, file))
            await self._decoding[key]
        frames, info = self._held[key]
        self._budget.settle(number, key, 3 * len(info.times) * info.size[0] * info.size[1])
        return frames, info

    async def _hold(self, key: Key, file: MediaFile) -> None:
        try:
            self._held[key] = await self._decode(file, key[1])
        finally:  # without an await in between: a task that finds neither would decode it again
            del self._decoding[key]

    async def _decode(self, media: MediaFile, selected: Selection) -> Frames:
        turns = Turns(media.path, self.config.decoder, media.folder)
        while True:
            try:
                frames, info, cached = await self._pool.decode(turns.decoder, media, self.contract, selected)
            except DecoderFailed as failure:
                turns.failed(failure)
                continue
            self.counts["from_disk" if cached else "decoded"] += 1
            self.counts["second_decoder"] += bool(turns.failures)
            return frames, info

    def _on_grant(self, lease: int) -> None:
        if lease in self._grants and not self._grants[lease].done():
            self._grants[lease].set_result(None)

    def _on_evict(self, key: Any) -> None:
        self.counts["evicted"] += self._held.pop(key, None) is not None  # None: lost, and not renewed
