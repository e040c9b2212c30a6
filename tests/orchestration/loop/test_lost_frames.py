"""Cancelled leases and lost frames: which bytes stay reserved, and what is decoded again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from small_clips import BOUND, CONTRACT, Run, clip

from evidence.errors import UnreadableMedia
from rollout.frames.decoder_pool import START_TIMEOUT_S, DecoderPool
from rollout.frames.decoding import decode


class WatchedDecoderPool(DecoderPool):
    """Signals a request to decode, waits for permission, and calls `when_decoded` before the caller gets the frames."""

    def __init__(self, pool: DecoderPool):
        super().__init__(1, pool.timeout_s, 2**30)
        self._free = pool._free
        self.requested, self.permitted, self.when_decoded = asyncio.Event(), asyncio.Event(), lambda: None

    async def decode(self, *args: Any) -> Any:
        self.requested.set()
        await self.permitted.wait()
        decoded = await super().decode(*args)
        asyncio.get_running_loop().call_soon(self.when_decoded)
        return decoded

    async def requested_by(self, lease: asyncio.Task[Any]) -> None:
        """Wait until `lease` requests a decode. Raises what `lease` raises if it ends without a request."""
        requested = asyncio.create_task(self.requested.wait())
        limit_s = START_TIMEOUT_S + 2 * self.timeout_s  # the start of a decoder, and the digest before it
        await asyncio.wait((requested, lease), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if not requested.done():
            requested.cancel()
            assert lease.done(), f"{lease} has not requested a decode within {limit_s:g} s"
            lease.result()


def test_a_lease_cancelled_while_decoding_keeps_its_bytes_until_decoding_ends(
    store: Any, run: Run, decoder: DecoderPool, tmp_path: Path
) -> None:
    paths = [clip(tmp_path / f"{k}.mp4", 20 * k) for k in range(2)]
    frame_store = store(BOUND)
    frame_store._pool = pool = WatchedDecoderPool(decoder)

    async def loop() -> None:
        cancelled = asyncio.create_task(frame_store.lease(paths[0]))
        await pool.requested_by(cancelled)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert frame_store.counters()["bytes"] == BOUND
        pool.permitted.set()
        (await frame_store.lease(paths[1])).release()
        assert frame_store.counters()["bytes"] == 0
        assert [frame_store.counters()[name] for name in ("decoded", "waits", "evicted")] == [2, 1, 1]
        (await frame_store.lease(paths[1])).release()
        assert frame_store.counters()["decoded"] == 2

    run(loop())


def test_a_lease_requested_just_when_decoding_ends_gets_the_same_frames(
    store: Any, run: Run, decoder: DecoderPool, tmp_path: Path
) -> None:
    path = clip(tmp_path / "a.mp4", 0)
    frame_store = store()
    frame_store._pool = pool = WatchedDecoderPool(decoder)

    async def loop() -> None:
        pool.permitted.set()
        late = []
        pool.when_decoded = lambda: late.append(asyncio.create_task(frame_store.lease(path)))
        first = await frame_store.lease(path)
        assert (await late[0]).frames == first.frames
        assert len(late) == frame_store.counters()["decoded"] == 1

    run(loop())


def loss_of(lease: Any) -> Exception:
    return ray.exceptions.ObjectLostError(lease.frames.hex(), b"", "")


def test_lost_frames_are_decoded_again_once_for_all_their_leases_within_the_same_bytes(
    store: Any, run: Run, tmp_path: Path
) -> None:
    path = clip(tmp_path / "a.mp4", 0)
    frame_store = store(BOUND)

    async def loop() -> None:
        leases = [await frame_store.lease(path) for _ in range(2)]
        before = frame_store.counters()
        for lease in leases:
            assert frame_store.lost(loss_of(lease))
        assert not frame_store.lost(TimeoutError())
        assert not frame_store.lost(ray.exceptions.ObjectLostError("0" * 56, b"", ""))
        lost_ref = leases[0].frames
        await asyncio.gather(*(lease.renew() for lease in leases))
        assert leases[0].frames == leases[1].frames != lost_ref
        assert frame_store.counters() == {**before, "decoded": 2, "lost": 1}
        np.testing.assert_array_equal(ray.get(leases[0].frames), decode(path, CONTRACT)[0])
        await leases[0].renew()  # nothing is lost now
        assert frame_store.counters()["decoded"] == 2

    run(loop())


def test_a_lease_released_during_renewal_keeps_its_bytes_until_renewal_ends(
    store: Any, run: Run, decoder: DecoderPool, tmp_path: Path
) -> None:
    frame_store = store(BOUND)

    async def loop() -> None:
        lease = await frame_store.lease(clip(tmp_path / "a.mp4", 0))
        size = frame_store.counters()["bytes"]
        frame_store.lost(loss_of(lease))
        frame_store._pool = pool = WatchedDecoderPool(decoder)
        renewing = asyncio.create_task(lease.renew())
        await pool.requested_by(renewing)
        renewing.cancel()
        lease.release()
        assert frame_store.counters()["bytes"] == size
        pool.permitted.set()
        (await frame_store.lease(clip(tmp_path / "b.mp4", 20))).release()
        assert (frame_store.counters()["waits"], frame_store.counters()["bytes"]) == (1, 0)

    run(loop())


def test_cached_frames_without_a_lease_can_be_lost_too(store: Any, run: Run, tmp_path: Path) -> None:
    paths = [clip(tmp_path / f"{k}.mp4", 20 * k) for k in range(2)]
    frame_store = store(BOUND)

    async def loop() -> None:
        with await frame_store.lease(paths[0]) as lease:
            frame_store.lost(loss_of(lease))
        (await frame_store.lease(paths[1])).release()
        assert (frame_store.counters()["lost"], frame_store.counters()["evicted"]) == (1, 0)
        (await frame_store.lease(paths[0])).release()
        assert frame_store.counters()["decoded"] == 3

    run(loop())


def test_lost_frames_of_a_changed_file_are_unreadable(store: Any, run: Run, tmp_path: Path) -> None:
    frame_store = store()
    lease = run(frame_store.lease(clip(tmp_path / "a.mp4", 0)))
    clip(tmp_path / "a.mp4", 100)
    frame_store.lost(loss_of(lease))
    with pytest.raises(UnreadableMedia, match="changed"):
        run(lease.renew())
    lease.release()
    assert frame_store.counters()["bytes"] == 0


@pytest.mark.parametrize("readable", [True, False])
def test_an_unusable_disk_cache_is_reported_once_and_counted(
    readable: bool, store: Any, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "cache"
    if readable:
        folder.symlink_to(tmp_path / "none")  # no entry can be found in it or written to it
    else:
        folder.write_text("a file")
    frame_store = store(cache_dir=str(folder))
    for k in range(2):
        run(frame_store.lease(clip(tmp_path / f"{k}.mp4", 20 * k))).release()
    assert (frame_store.counters()["decoded"], frame_store.counters()["disk_failures"]) == (2, 2)
    (warning,) = (message for message in caplog.messages if "frames.cache_dir" in message)
    assert str(folder) in warning
