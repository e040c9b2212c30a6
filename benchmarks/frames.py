"""Costs and savings of the frame store, as ratios measured in one run, next to memcpy of the same bytes.

    python -m benchmarks.frames [--rounds 3]

Prints JSON. The first run creates its files in data/benchmarks (0.4 GB): 10 minutes of 720p H.264 with x264's defaults,
of which 10 s are encoded and repeated; the same with a key frame every 2 s, as in streaming; and with key frames only,
at 5 frames per second: the cheaper a seek, the larger the share of the digest and of the table of times.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import av
import cv2
import numpy as np
import ray
from ray._private.internal_api import memory_summary

from evidence.sampling import SamplingContract, most_bytes
from rollout.frames.config import FramesConfig
from rollout.frames.decoders import decord
from rollout.frames.decoding import decode, examine
from rollout.frames.store import FrameStore

FOLDER = Path("data/benchmarks")
SHORT = FOLDER / "short.mp4"
# (frames per second, frames from key frame to key frame) by suffix of the measurement.
LONG = {"": (25, 250), "_key_frame_every_2_s": (25, 50), "_key_frames_only": (5, 1)}
PIECE_S, PIECES = 10, 60
CONTRACT = SamplingContract(frames=16, multiple=28)
CONFIG = FramesConfig(workers=1, timeout_s=300)
SIZES_MB = (1, 10, 100, 500)
G = 8


def make_clip(path: Path, pieces: int, fps: int, group_of_pictures: int) -> None:
    """Write a slowly moving picture: the packets of the same 10 s, `pieces` times."""
    wide = cv2.resize(np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8), (1600, 900))
    packets: list[Any] = []
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"g": str(group_of_pictures)})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for k in range(PIECE_S * fps):
            image = np.ascontiguousarray(wide[k // 2 : k // 2 + 720, k : k + 1280])
            packets += stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24"))
        packets += stream.encode(None)
        stored = [(bytes(p), p.pts, p.dts, p.is_keyframe, p.time_base) for p in packets]
        for piece in range(pieces):
            for content, pts, dts, is_key, time_base in stored:
                packet = av.Packet(content)
                packet.time_base, packet.is_keyframe, packet.stream = time_base, is_key, stream
                shift = round(piece * PIECE_S / time_base)
                packet.pts, packet.dts = pts + shift, dts + shift
                container.mux(packet)


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def memcpy_s(size: int) -> float:
    source, target = np.ones(size, np.uint8), np.ones(size, np.uint8)
    return min(seconds(lambda: np.copyto(target, source)) for _ in range(5))


def long(name: str) -> Path:
    return FOLDER / f"720p{name}.mp4"


@ray.remote(num_cpus=0)
class Bare:
    """decord without the store, in a process like the store's decoders."""

    def read_s(self, path: Path) -> float:
        """Seconds to decode the same 16 frames at full size."""
        start = time.perf_counter()
        reader = decord.VideoReader(str(path), num_threads=1)
        reader.get_batch(np.linspace(0, len(reader) - 1, 16).round().astype(int).tolist()).asnumpy()
        return time.perf_counter() - start


async def reads(name: str, rounds: int) -> dict[str, Any]:
    """First and repeated reads through the store and reads by bare decord, alternating so that both see the same
    load."""
    path, decord_alone = long(name), Bare.remote()
    first, again, bare = [], [], []
    for _ in range(rounds):
        store = FrameStore(CONTRACT, 2**28, CONFIG)
        (await store.lease(str(SHORT))).release()  # starts its decoder
        bare.append(ray.get(decord_alone.read_s.remote(path)))
        start = time.perf_counter()
        lease = await store.lease(str(path))
        frames = ray.get(lease.frames)
        first.append(time.perf_counter() - start)
        start = time.perf_counter()
        ray.get((await store.lease(str(path))).frames)
        again.append(time.perf_counter() - start)
        assert store.counters()["decoded"] == 2
    results = {
        "first_read_over_bare_decord": median(a / b for a, b in zip(first, bare)),
        "first_read_over_bare_decord_wanted": "at most 1.2",
        "decoding_over_repeated_read": median(a / b for a, b in zip(first, again)),
        "decoding_over_repeated_read_wanted": "at least 50",
        "first_read_s": first,
        "bare_decord_s": bare,
        "repeated_read_s": again,
        "digest_s": seconds(lambda: examine(str(path))),
        "file_mb": path.stat().st_size / 1e6,
        "frames_mb": frames.nbytes / 1e6,
        "memcpy_frames_s": memcpy_s(frames.nbytes),
    }
    return {f"{key}{name}": value for key, value in results.items()}


@ray.remote(num_cpus=0)
class Consumer:
    """Stands for the policy, the referee or the learner as a consumer of frames."""

    def __init__(self) -> None:
        self.decoded = 0

    def use(self, frames: np.ndarray) -> bool:
        """Read the first and last byte of the array. Returns whether it is read-only shared memory and not a copy."""
        address = frames.__array_interface__["data"][0]
        _ = frames.flat[0], frames.flat[-1]
        for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
            low, high = (int(part, 16) for part in line.split()[0].split("-"))
            if low <= address < high:
                return "/dev/shm" in line and not frames.flags.writeable
        return False

    def decode(self, path: str) -> None:
        decode(path, CONTRACT)
        self.decoded += 1

    def decodes(self) -> int:
        return self.decoded


async def decodes_per_group() -> dict[str, int]:
    """Decodes for one group of 8, whose frames are used for each completion, by the referee and by the learner: with
    the store, and if each consumer decoded for itself."""
    policy, referee, learner = (Consumer.remote() for _ in range(3))
    store = FrameStore(CONTRACT, 2**28, CONFIG)
    lease = await store.lease(str(SHORT))
    users = [policy] * G + [referee, learner]
    assert all(ray.get([user.use.remote(lease.frames) for user in users])), "frames were copied"
    ray.get([user.decode.remote(str(SHORT)) for user in users])
    per_consumer = sum(ray.get([user.decodes.remote() for user in (policy, referee, learner)]))
    return {"decodes_per_group_store": store.counters()["decoded"], "decodes_per_group_per_consumer": per_consumer}


def hand_over() -> dict[str, Any]:
    """Time to pass arrays of the object store to an actor on the same node, each for the first time."""
    consumer = Consumer.remote()
    ray.get(consumer.use.remote(ray.put(np.zeros(10**6, np.uint8))))
    times: dict[int, float] = {}
    for size in SIZES_MB:
        measured = []
        for _ in range(7):
            frames = ray.put(np.zeros(size * 10**6, np.uint8))
            start = time.perf_counter()
            assert ray.get(consumer.use.remote(frames)), "the array was copied"
            measured.append(time.perf_counter() - start)
            del frames
        times[size] = median(measured)
    return {
        "hand_over_500_mb_over_1_mb": times[500] / times[1],
        "hand_over_500_mb_over_1_mb_wanted": "about 1, no copy",
        "hand_over_s_by_mb": times,
        "memcpy_s_by_mb": {size: memcpy_s(size * 10**6) for size in SIZES_MB},
    }


async def over_budget() -> dict[str, Any]:
    """Twelve concurrent groups with a budget for the frames of three: they wait, and nothing spills."""
    contract = SamplingContract(frames=16, max_pixels=921_600, min_pixels=921_600 // 2, multiple=28)
    budget = 3 * most_bytes(contract)
    store = FrameStore(contract, budget, CONFIG, holders=2)
    most = 0

    async def group(path: str) -> None:
        nonlocal most
        with await store.lease(path) as lease:
            ray.get(lease.frames)
            await asyncio.sleep(0.2)
            most = max(most, store.counters()["bytes"])

    paths = []
    for k in range(12):
        paths.append(SHORT.with_name(f"short{k}.mp4"))
        paths[-1].write_bytes(SHORT.read_bytes() + bytes(k))  # different content, the same frames
    await asyncio.gather(*(group(str(path)) for path in paths))
    for path in paths:
        path.unlink()
    return {
        "over_budget_waits": store.counters()["waits"],
        "over_budget_evicted": store.counters()["evicted"],
        "over_budget_most_live_over_budget": most / budget,
        "over_budget_spilled": "Spilled" in memory_summary(ray.get_runtime_context().gcs_address, stats_only=True),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not SHORT.exists():
        make_clip(SHORT, 1, 25, 50)
    for name, (fps, group_of_pictures) in LONG.items():
        if not long(name).exists():
            make_clip(long(name), PIECES, fps, group_of_pictures)
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=1200 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        _system_config={"worker_niceness": 0},  # Ray's default of 15 would yield to other programs
    )
    results: dict[str, Any] = {}
    for name in LONG:
        results |= asyncio.run(reads(name, rounds))
    results |= asyncio.run(decodes_per_group())
    results |= hand_over()
    results |= asyncio.run(over_budget())
    ray.shutdown()
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
