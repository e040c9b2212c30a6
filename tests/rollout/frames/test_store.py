"""The frame store on a real object store: each video decoded once, within the budget, in processes that may be lost."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import ray
from PIL import Image
from small_clips import BOUND, CONTRACT, Run, clip

from evidence.errors import UnreadableMedia
from rollout.frames.decoding import decode


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
        while not held.counters()["waits"] and not third.done():
            await asyncio.sleep(0.01)
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
