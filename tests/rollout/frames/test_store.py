"""The frame store on a real object store: each video is decoded once, within the budget, in expendable processes."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import ray
from frame_folders import write_frames
from PIL import Image
from small_clips import BOUND, CONTRACT, Run, clip

from evidence.errors import UnreadableMedia
from evidence.sampling import ALL, Selection
from rollout.frames import store as module
from rollout.frames.decoding import decode


def test_a_released_lease_drops_its_frames(store: Any, run: Run, tmp_path: Path) -> None:
    lease = run(store().lease(clip(tmp_path / "a.mp4", 0)))
    lease.release()
    assert lease.frames is None, "a reference to the lease would keep bytes that are reserved by others"


def test_a_video_is_decoded_once_for_all_leases_and_paths(store: Any, run: Run, tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 0)
    os.link(path, tmp_path / "b.mp4")
    frame_store = store()

    async def lease_all() -> list[Any]:
        return await asyncio.gather(*(frame_store.lease(str(p)) for p in [path, path, tmp_path / "b.mp4"]))

    leases = run(lease_all())
    assert frame_store.counters()["decoded"] == 1
    expected, info = decode(path, CONTRACT)
    for lease in leases:
        np.testing.assert_array_equal(ray.get(lease.frames), expected)
        assert lease.info == info
        lease.release()
    assert frame_store.counters()["bytes"] == 0
    run(frame_store.lease(path)).release()
    assert frame_store.counters()["decoded"] == 1


def test_a_changed_file_is_decoded_again(store: Any, run: Run, tmp_path: Path) -> None:
    frame_store = store()
    before = run(frame_store.lease(clip(tmp_path / "a.mp4", 0)))
    after = run(frame_store.lease(clip(tmp_path / "a.mp4", 100)))
    assert before.info.key != after.info.key
    assert ray.get(before.frames).mean() + 50 < ray.get(after.frames).mean()


def test_leases_beyond_the_budget_wait(store: Any, run: Run, tmp_path: Path) -> None:
    size = decode(clip(tmp_path / "0.mp4", 0), CONTRACT)[0].nbytes
    frame_store = store(BOUND + size)

    async def loop() -> None:
        first = await frame_store.lease(clip(tmp_path / "0.mp4", 0))
        second = await frame_store.lease(clip(tmp_path / "1.mp4", 20))
        assert frame_store.counters()["waits"] == 0
        third = asyncio.create_task(frame_store.lease(clip(tmp_path / "2.mp4", 40)))
        while not frame_store.counters()["waits"] and not third.done():
            await asyncio.sleep(0.01)
        assert not third.done()
        assert frame_store.counters()["waits"] == 1
        assert frame_store.counters()["bytes"] == 2 * size
        first.release()
        (await third).release()
        second.release()
        assert frame_store.counters()["evicted"] == 1

    run(loop())


def test_a_cancelled_waiting_lease_does_not_block_the_next(store: Any, run: Run, tmp_path: Path) -> None:
    frame_store = store(BOUND)

    async def loop() -> None:
        first = await frame_store.lease(clip(tmp_path / "0.mp4", 0))
        second = asyncio.create_task(frame_store.lease(clip(tmp_path / "1.mp4", 20)))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        third = asyncio.create_task(frame_store.lease(clip(tmp_path / "2.mp4", 40)))
        await asyncio.sleep(0.05)
        first.release()
        (await third).release()

    run(loop())


def test_a_video_above_its_share_of_the_budget_is_refused_by_name(store: Any, run: Run, tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 0)
    with pytest.raises(UnreadableMedia, match="above its share"):
        run(store(3 * BOUND, holders=4).lease(path))
    with pytest.raises(UnreadableMedia, match="above its share"):
        run(store(2 * BOUND).lease(path, Selection(tuple(range(5)))))


def test_a_folder_of_frames_is_leased_at_its_rate_and_a_file_at_its_own(store: Any, run: Run, tmp_path: Path) -> None:
    folder, path = str(write_frames(tmp_path / "frames", 5)), clip(tmp_path / "a.mp4", 0)
    frame_store = store()

    async def loop() -> None:
        frame_store.prefetch([(folder, Selection(fps=2.0)), (path, Selection(fps=2.0))])
        while frame_store._ahead:
            await asyncio.sleep(0.01)
        for fps in (1.0, 2.0, 1.0):
            with await frame_store.lease(folder, Selection(fps=fps)) as lease:
                assert lease.info == decode(folder, CONTRACT, Selection(fps=fps))[1]
        assert frame_store.counters()["decoded"] == 3  # the file, and the folder at two rates
        for fps in (None, 1.0, 2.0):
            with await frame_store.lease(path, Selection(fps=fps)) as lease:
                assert lease.info == decode(path, CONTRACT)[1]
        frame_store.prefetch([(path, Selection(fps=1.0)), (folder, Selection(fps=1.0))])
        assert not frame_store._ahead
        assert frame_store.counters()["decoded"] == 3
        with pytest.raises(UnreadableMedia, match="must be given as 'fps'"):
            await frame_store.lease(folder)
        Path(folder, "00003.jpg").unlink()
        with pytest.raises(UnreadableMedia, match="have a gap between them"):
            await frame_store.lease(folder, Selection(fps=1.0))

    run(loop())


def test_a_stated_rate_does_not_keep_a_file_from_being_shared(store: Any, run: Run, tmp_path: Path) -> None:
    path, settings = clip(tmp_path / "a.mp4", 0), {"cache_dir": str(tmp_path / "cache")}
    frame_store, again = store(BOUND, **settings), store(BOUND, **settings)

    async def loop() -> None:
        with await frame_store.lease(path, Selection(fps=3.0)):
            async with asyncio.timeout(60):  # there is no room for a second video
                (await frame_store.lease(path, Selection(fps=2.0))).release()
        with await again.lease(path, Selection(fps=1.0)):
            assert (again.counters()["from_disk"], again.counters()["decoded"]) == (1, 0)

    run(loop())


def test_prefetched_frames_are_not_decoded_again(store: Any, run: Run, tmp_path: Path) -> None:
    paths = [clip(tmp_path / f"{k}.mp4", 10 * k) for k in range(3)]
    frame_store = store()

    async def loop() -> None:
        frame_store.prefetch([(str(tmp_path / "none.mp4"), ALL), *((path, ALL) for path in paths)])
        while frame_store._ahead:
            await asyncio.sleep(0.01)
        assert frame_store.counters()["prefetched"] == frame_store.counters()["decoded"] == 3
        for path in paths:
            await frame_store.lease(path)
        assert frame_store.counters()["decoded"] == 3

    run(loop())


def test_a_prefetch_looks_at_no_file_in_the_event_loop(
    store: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    unrecorded = module.identify

    def recorded(path: str) -> Any:
        threads.append(threading.get_ident())
        return unrecorded(path)

    monkeypatch.setattr(module, "identify", recorded)
    frame_store, path = store(), clip(tmp_path / "a.mp4", 0)

    async def loop() -> None:
        frame_store.prefetch([(path, ALL)])
        while frame_store._ahead:
            await asyncio.sleep(0.01)

    run(loop())
    assert threads
    assert threading.get_ident() not in threads


def test_a_prefetch_takes_no_bytes_from_leases(store: Any, run: Run, tmp_path: Path) -> None:
    frame_store = store(BOUND)

    async def loop() -> None:
        lease = await frame_store.lease(clip(tmp_path / "a.mp4", 0))
        frame_store.prefetch([(clip(tmp_path / "b.mp4", 40), ALL)])
        assert not frame_store._ahead
        lease.release()

    run(loop())


def test_frames_on_disk_survive_the_run_and_damage_is_detected(store: Any, run: Run, tmp_path: Path) -> None:
    path, folder = clip(tmp_path / "a.mp4", 0), tmp_path / "cache"
    before = ray.get(run(store(cache_dir=str(folder)).lease(path)).frames)
    again = store(cache_dir=str(folder))
    np.testing.assert_array_equal(ray.get(run(again.lease(path)).frames), before)
    assert (again.counters()["from_disk"], again.counters()["decoded"]) == (1, 0)
    (entry,) = folder.iterdir()
    entry.write_bytes(entry.read_bytes()[:-1] + b"?")
    damaged = store(cache_dir=str(folder))
    np.testing.assert_array_equal(ray.get(run(damaged.lease(path)).frames), before)
    assert (damaged.counters()["from_disk"], damaged.counters()["decoded"]) == (0, 1)


def test_the_second_decoder_is_tried_after_the_first(store: Any, run: Run, tmp_path: Path) -> None:
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


def test_an_unreadable_file_affects_no_other(store: Any, run: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    frame_store = store()
    for _ in range(2):  # a second lease tries again
        with pytest.raises(UnreadableMedia, match=r"bad\.mp4: "):
            run(frame_store.lease(str(bad)))
    with pytest.raises(UnreadableMedia, match="no such file"):
        run(frame_store.lease(str(tmp_path / "none.mp4")))
    assert frame_store.counters()["bytes"] == 0
    run(frame_store.lease(clip(tmp_path / "a.mp4", 0))).release()


def test_an_immense_image_fails_at_the_memory_limit_of_its_process(store: Any, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "immense.png"
    Image.new("1", (9000, 9000)).save(path)  # 243 MB as RGB
    frame_store = store(worker_gib=0.1)
    with pytest.raises(UnreadableMedia, match="out of memory"):
        run(frame_store.lease(str(path)))
    assert frame_store.counters()["decoder_deaths"] == 1
    run(frame_store.lease(clip(tmp_path / "a.mp4", 0))).release()
