"""Leases that are given up and frames that are lost: whose bytes are reserved, and what is decoded anew."""

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


class Watched(DecoderPool):
    """Tells when it is asked to decode, decodes once it may, and tells when it has, before anybody hears of it."""

    def __init__(self, pool: DecoderPool):
        super().__init__(1, pool.timeout_s, 2**30)
        self._free = pool._free
        self.asked, self.may, self.when_decoded = asyncio.Event(), asyncio.Event(), lambda: None

    async def decode(self, *args: Any) -> Any:
        self.asked.set()
        await self.may.wait()
        decoded = await super().decode(*args)
        asyncio.get_running_loop().call_soon(self.when_decoded)
        return decoded

    async def asked_by(self, lease: asyncio.Task[Any]) -> None:
        """Until `lease` asks it to decode. Raises what `lease` raises if that never asks."""
        asked = asyncio.create_task(self.asked.wait())
        limit_s = START_TIMEOUT_S + 2 * self.timeout_s  # of a start, and of the digest that comes before
        await asyncio.wait((asked, lease), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            asked.cancel()
            assert lease.done(), f"the test has waited {limit_s:g} s for {lease} to ask for a decoder"
            lease.result()


def test_a_lease_given_up_while_it_is_decoded_keeps_its_bytes_until_that_ends(
    store: Any, run: Run, decoder: DecoderPool, tmp_path: Path
) -> None:
    paths = [clip(tmp_path / f"{k}.mp4", 20 * k) for k in range(2)]
    held = store(BOUND)
    held._pool = pool = Watched(decoder)

    async def loop() -> None:
        given_up = asyncio.create_task(held.lease(paths[0]))
        await pool.asked_by(given_up)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert held.counters()["bytes"] == BOUND
        pool.may.set()
        (await held.lease(paths[1])).release()
        assert held.counters()["bytes"] == 0
        assert [held.counters()[name] for name in ("decoded", "waits", "evicted")] == [2, 1, 1]
        (await held.lease(paths[1])).release()
        assert held.counters()["decoded"] == 2

    run(loop())


def test_who_asks_at_the_moment_in_which_decoding_ends_gets_the_same_frames(
    store: Any, run: Run, decoder: DecoderPool, tmp_path: Path
) -> None:
    path = clip(tmp_path / "a.mp4", 0)
    held = store()
    held._pool = pool = Watched(decoder)

    async def loop() -> None:
        pool.may.set()
        late = []
        pool.when_decoded = lambda: late.append(asyncio.create_task(held.lease(path)))
        first = await held.lease(path)
        assert (await late[0]).frames == first.frames
        assert len(late) == held.counters()["decoded"] == 1

    run(loop())


def lost(lease: Any) -> Exception:
    return ray.exceptions.ObjectLostError(lease.frames.hex(), b"", "")


def test_lost_frames_are_decoded_anew_once_for_all_who_hold_them_in_the_same_room(
    store: Any, run: Run, tmp_path: Path
) -> None:
    path = clip(tmp_path / "a.mp4", 0)
    held = store(BOUND)

    async def loop() -> None:
        leases = [await held.lease(path) for _ in range(2)]
        before = held.counters()
        for lease in leases:
            assert held.lost(lost(lease))
        assert not held.lost(TimeoutError())
        assert not held.lost(ray.exceptions.ObjectLostError("0" * 56, b"", ""))
        gone = leases[0].frames
        await asyncio.gather(*(lease.renew() for lease in leases))
        assert leases[0].frames == leases[1].frames != gone
        assert held.counters() == {**before, "decoded": 2, "lost": 1}
        np.testing.assert_array_equal(ray.get(leases[0].frames), decode(path, CONTRACT)[0])
        await leases[0].renew()  # nothing is lost now
        assert held.counters()["decoded"] == 2

    run(loop())


def test_a_lease_released_while_it_is_renewed_keeps_its_bytes_until_that_ends(
    store: Any, run: Run, decoder: DecoderPool, tmp_path: Path
) -> None:
    held = store(BOUND)

    async def loop() -> None:
        lease = await held.lease(clip(tmp_path / "a.mp4", 0))
        size = held.counters()["bytes"]
        held.lost(lost(lease))
        held._pool = pool = Watched(decoder)
        renewing = asyncio.create_task(lease.renew())
        await pool.asked_by(renewing)
        renewing.cancel()
        lease.release()
        assert held.counters()["bytes"] == size
        pool.may.set()
        (await held.lease(clip(tmp_path / "b.mp4", 20))).release()
        assert (held.counters()["waits"], held.counters()["bytes"]) == (1, 0)

    run(loop())


def test_frames_that_nobody_holds_can_be_lost_too(store: Any, run: Run, tmp_path: Path) -> None:
    paths = [clip(tmp_path / f"{k}.mp4", 20 * k) for k in range(2)]
    held = store(BOUND)

    async def loop() -> None:
        with await held.lease(paths[0]) as lease:
            held.lost(lost(lease))
        (await held.lease(paths[1])).release()
        assert (held.counters()["lost"], held.counters()["evicted"]) == (1, 0)
        (await held.lease(paths[0])).release()
        assert held.counters()["decoded"] == 3

    run(loop())


def test_lost_frames_of_a_file_that_changed_are_gone(store: Any, run: Run, tmp_path: Path) -> None:
    held = store()
    lease = run(held.lease(clip(tmp_path / "a.mp4", 0)))
    clip(tmp_path / "a.mp4", 100)
    held.lost(lost(lease))
    with pytest.raises(UnreadableMedia, match="changed"):
        run(lease.renew())
    lease.release()
    assert held.counters()["bytes"] == 0


@pytest.mark.parametrize("readable", [True, False])
def test_a_disk_that_keeps_nothing_is_told_once_and_counted(
    readable: bool, store: Any, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "cache"
    if readable:
        folder.symlink_to(tmp_path / "none")  # has no entry, and takes none
    else:
        folder.write_text("no folder")
    held = store(cache_dir=str(folder))
    for k in range(2):
        run(held.lease(clip(tmp_path / f"{k}.mp4", 20 * k))).release()
    assert (held.counters()["decoded"], held.counters()["disk_failures"]) == (2, 2)
    (told,) = (message for message in caplog.messages if "frames.cache_dir" in message)
    assert str(folder) in told
