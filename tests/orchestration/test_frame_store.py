"""The frame store on a real object store: each video decoded once, within the budget, in processes that may be lost."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import ray
from PIL import Image

from evidence.errors import UnreadableMedia
from evidence.sampling import SamplingContract, most_bytes
from orchestration import decoder_pool
from orchestration.decoder_pool import DecoderPool
from orchestration.frame_store import FrameStore
from orchestration.settings import FramesConfig
from rollout.frames import decode, examine

CONTRACT = SamplingContract(frames=4, max_pixels=3136, min_pixels=784)
BOUND = most_bytes(CONTRACT)
Run = Callable[..., Any]


def clip(path: Path, grey: int) -> str:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 4, (112, 56))
    for k in range(8):
        writer.write(np.full((56, 112, 3), grey + 4 * k, np.uint8))
    writer.release()
    return str(path)


def stop(pool: DecoderPool) -> None:
    while not pool._free.empty():
        if (decoder := pool._free.get_nowait()) is not None:
            ray.kill(decoder)


@pytest.fixture(scope="module")
def decoder(ray_cluster: Any) -> Iterator[DecoderPool]:
    """One process, started once, for every store that asks for nothing special."""
    pool = DecoderPool(1, timeout_s=60, memory_bytes=2**30)
    yield pool
    stop(pool)


@pytest.fixture
def store(decoder: DecoderPool) -> Iterator[Callable[..., FrameStore]]:
    made = []

    def make(budget: int = 10 * BOUND, holders: int = 1, **config: Any) -> FrameStore:
        one = FrameStore(CONTRACT, budget, FramesConfig(**{"workers": 1, **config}), holders)
        if {"worker_gib", "cache_dir"} & config.keys():
            made.append(one)
        else:
            one._pool = decoder
        return one

    yield make
    for one in made:
        stop(one._pool)


def test_a_released_lease_lets_its_frames_go(store: Any, run: Run, tmp_path: Path) -> None:
    lease = run(store().lease(clip(tmp_path / "a.mp4", 0)))
    lease.release()
    assert lease.frames is None, "who still holds the lease would keep bytes that are promised to others"


def test_a_video_is_decoded_once_whoever_asks_under_whatever_path(store: Any, run: Run, tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 0)
    os.link(path, tmp_path / "b.mp4")
    held = store()

    async def ask() -> list[Any]:
        return await asyncio.gather(*(held.lease(str(p)) for p in [path, path, tmp_path / "b.mp4"]))

    leases = run(ask())
    assert held.counters()["decoded"] == 1
    expected, info = decode(path, CONTRACT)
    for lease in leases:
        np.testing.assert_array_equal(ray.get(lease.frames), expected)
        assert lease.info == info
        lease.release()
    assert held.counters()["bytes"] == 0
    run(held.lease(path)).release()
    assert held.counters()["decoded"] == 1


def test_a_file_that_changed_is_decoded_anew(store: Any, run: Run, tmp_path: Path) -> None:
    held = store()
    before = run(held.lease(clip(tmp_path / "a.mp4", 0)))
    after = run(held.lease(clip(tmp_path / "a.mp4", 100)))
    assert before.info.key != after.info.key
    assert ray.get(before.frames).mean() + 50 < ray.get(after.frames).mean()


def test_who_needs_more_than_is_free_waits_until_it_is(store: Any, run: Run, tmp_path: Path) -> None:
    size = decode(clip(tmp_path / "0.mp4", 0), CONTRACT)[0].nbytes
    held = store(BOUND + size)

    async def loop() -> None:
        first = await held.lease(clip(tmp_path / "0.mp4", 0))
        second = await held.lease(clip(tmp_path / "1.mp4", 20))
        assert held.counters()["waits"] == 0
        third = asyncio.create_task(held.lease(clip(tmp_path / "2.mp4", 40)))
        await asyncio.sleep(0.2)
        assert not third.done()
        assert held.counters()["waits"] == 1
        assert held.counters()["bytes"] == 2 * size
        first.release()
        (await third).release()
        second.release()
        assert held.counters()["evicted"] == 1

    run(loop())


def test_a_waiting_lease_that_is_given_up_makes_room(store: Any, run: Run, tmp_path: Path) -> None:
    held = store(BOUND)

    async def loop() -> None:
        first = await held.lease(clip(tmp_path / "0.mp4", 0))
        second = asyncio.create_task(held.lease(clip(tmp_path / "1.mp4", 20)))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        third = asyncio.create_task(held.lease(clip(tmp_path / "2.mp4", 40)))
        await asyncio.sleep(0.05)
        first.release()
        (await third).release()

    run(loop())


def test_a_video_above_its_share_of_the_budget_is_refused_by_name(store: Any, run: Run, tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 0)
    with pytest.raises(UnreadableMedia, match="above its share"):
        run(store(3 * BOUND, holders=4).lease(path))
    with pytest.raises(UnreadableMedia, match="above its share"):
        run(store(2 * BOUND).lease(path, tuple(range(5))))


def test_prefetched_frames_are_there_when_they_are_asked_for(store: Any, run: Run, tmp_path: Path) -> None:
    paths = [clip(tmp_path / f"{k}.mp4", 10 * k) for k in range(3)]
    held = store()

    async def loop() -> None:
        held.prefetch([(str(tmp_path / "none.mp4"), ()), *((path, ()) for path in paths)])
        while held._ahead:
            await asyncio.sleep(0.01)
        assert held.counters()["prefetched"] == held.counters()["decoded"] == 3
        for path in paths:
            await held.lease(path)
        assert held.counters()["decoded"] == 3

    run(loop())


def test_a_prefetch_takes_nothing_from_who_holds_or_waits(store: Any, run: Run, tmp_path: Path) -> None:
    held = store(BOUND)

    async def loop() -> None:
        lease = await held.lease(clip(tmp_path / "a.mp4", 0))
        held.prefetch([(clip(tmp_path / "b.mp4", 40), ())])
        assert not held._ahead
        lease.release()

    run(loop())


def test_frames_on_disk_survive_the_run_and_damage_to_them_is_seen(store: Any, run: Run, tmp_path: Path) -> None:
    path, folder = clip(tmp_path / "a.mp4", 0), tmp_path / "cache"
    before = ray.get(run(store(cache_dir=str(folder)).lease(path)).frames)
    again = store(cache_dir=str(folder))
    np.testing.assert_array_equal(ray.get(run(again.lease(path)).frames), before)
    assert (again.counters()["from_disk"], again.counters()["decoded"]) == (1, 0)
    (entry,) = folder.iterdir()
    entry.write_bytes(entry.read_bytes()[:-1] + b"?")
    mended = store(cache_dir=str(folder))
    np.testing.assert_array_equal(ray.get(run(mended.lease(path)).frames), before)
    assert (mended.counters()["from_disk"], mended.counters()["decoded"]) == (0, 1)


def test_the_second_decoder_reads_what_the_first_cannot(store: Any, run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "a.mp4")
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=4, options={"bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 112, 56, "yuv420p"
        for _ in range(20):
            container.mux(stream.encode(av.VideoFrame(112, 56, "yuv420p")))
        container.mux(stream.encode(None))
    first, other = store(), store(decoder="pyav")
    a, b = run(first.lease(path)), run(other.lease(path))
    assert a.info == b.info
    assert first.counters()["second_decoder"] == 1
    assert other.counters()["second_decoder"] == 0


def test_a_file_that_no_decoder_reads_costs_itself(store: Any, run: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    held = store()
    for _ in range(2):  # and it is tried again
        with pytest.raises(UnreadableMedia, match=r"bad\.mp4: "):
            run(held.lease(str(bad)))
    with pytest.raises(UnreadableMedia, match="no such file"):
        run(held.lease(str(tmp_path / "none.mp4")))
    assert held.counters()["bytes"] == 0
    run(held.lease(clip(tmp_path / "a.mp4", 0))).release()


def test_an_immense_image_fails_within_the_limit_of_its_process(store: Any, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "immense.png"
    Image.new("1", (9000, 9000)).save(path)  # 243 MB as RGB
    held = store(worker_gib=0.1)
    with pytest.raises(UnreadableMedia, match="out of memory"):
        run(held.lease(str(path)))
    assert held.counters()["decoder_deaths"] == 1
    run(held.lease(clip(tmp_path / "a.mp4", 0))).release()


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


def test_a_lease_given_up_while_it_is_decoded_keeps_its_bytes_until_that_ends(
    store: Any, run: Run, decoder: DecoderPool, tmp_path: Path
) -> None:
    paths = [clip(tmp_path / f"{k}.mp4", 20 * k) for k in range(2)]
    held = store(BOUND)
    held._pool = pool = Watched(decoder)

    async def loop() -> None:
        given_up = asyncio.create_task(held.lease(paths[0]))
        await pool.asked.wait()
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
        await pool.asked.wait()
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


@ray.remote(num_cpus=0)
class Hanging:
    """A decoder that hangs on one file, dies of another, and has no memory left for a third."""

    def ready(self) -> None:
        import rollout.frames  # noqa: F401  so that it takes no time later

    def examine(self, path: str) -> Any:
        if path == "hangs":
            time.sleep(1000)
        if path == "kills":
            os._exit(1)
        if path == "bloats":
            raise MemoryError
        return examine(path)


def test_no_file_is_blamed_for_a_decoder_that_died_while_it_was_idle(
    ray_cluster: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(decoder_pool.Decoder, "remote", lambda *_: started.append(Hanging.remote()) or started[-1])
    good = clip(tmp_path / "a.mp4", 0)
    pool = DecoderPool(1, timeout_s=3.0, memory_bytes=0)

    async def loop() -> None:
        await pool.examine(good)
        ray.kill(started[0])
        assert (await pool.examine(good)).path == good
        assert (pool.deaths, len(started)) == (1, 2)
        stop(pool)

    run(loop())


def test_a_decoder_that_hangs_or_dies_is_replaced(
    ray_cluster: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_pool.Decoder, "remote", lambda *_: Hanging.remote())
    good = clip(tmp_path / "a.mp4", 0)
    pool = DecoderPool(1, timeout_s=3.0, memory_bytes=0)

    async def loop() -> None:
        with pytest.raises(UnreadableMedia, match="more than 3 s"):
            await pool.examine("hangs")
        with pytest.raises(UnreadableMedia, match="died"):
            await pool.examine("kills")
        with pytest.raises(UnreadableMedia, match="out of memory"):
            await pool.examine("bloats")
        assert (await pool.examine(good)).path == good
        assert pool.deaths == 3
        given_up = asyncio.create_task(pool.examine("hangs"))
        await asyncio.sleep(0.3)
        given_up.cancel()
        assert (await pool.examine(good)).path == good
        stop(pool)

    run(loop())
