"""The part of benchmarks/reward.py that measures a referee: overhead of the service over its engine, and cached
verdicts.

`overhead`: 64 claims about a clip of the embedded world, which are 128 questions, go through the service (crop,
drawing, keys, tokens, engine, reading) and, alternating with it, as many go directly to the same engine, with tokens
and images made before the clock starts. The overhead is the share of the service's CPU seconds, engine process
included, that the engine alone does not need, over all rounds. CPU seconds are used because other programs on the
machine change the wall time. All boxes differ, so that neither finds anything in a cache. `cached_per_s`: cached
verdicts per CPU second of this process, next to json.loads of as many claims in the same run.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil

from evidence.sampling import SamplingContract
from evidence.types import Claim, FrameInfo, Prompt
from orchestration.config import load_config
from orchestration.supervision.standalone_referee import StandaloneConfig
from referee.service.engine_backend import EngineBackend
from referee.service.service import RefereeService, ServiceConfig
from referee.verification import KINDS, SCALE, VerificationConfig, drawn_box, images, parts
from rollout.dataset.shapes import make_shapes
from rollout.engine import EngineConfig
from rollout.frames.decoding import decode

ROOT = Path(__file__).parents[1]
BATCH = 64
CACHED = 2000
QUESTION = "Where is the red circle at 3.0 s?"


def measure_referee(folder: str, rounds: int, seed: int) -> dict[str, object]:
    """The figures of the referee in `folder`."""
    config = load_config(StandaloneConfig, ROOT / "configs/world/shapes.yaml", [f"model.referee={folder}"])
    frames, info = _clip(config.contract)
    return asyncio.run(_measured(folder, config.verification, frames, info, rounds, seed))


async def _measured(
    folder: str, cfg: VerificationConfig, frames: np.ndarray, info: FrameInfo, rounds: int, seed: int
) -> dict[str, object]:
    backend = EngineBackend(
        EngineConfig(
            model=str(Path(folder).absolute()),
            dtype="float32",
            max_model_len=512,
            max_num_seqs=BATCH,
            max_images=2,
            kv_cache_gib=0.25,
        )
    )
    service = RefereeService(backend, cfg, ServiceConfig())
    await service.start()
    rng = np.random.default_rng(seed)
    try:
        whole, bare = [], []
        for number in range(rounds + 1):
            claims, others = np.split(np.array(_claims(rng, info, 2 * BATCH), object), 2)
            requests = _requests(backend, cfg, others, info, frames)

            async def engine_only(requests: list[tuple[Prompt, list[np.ndarray]]] = requests) -> None:
                await asyncio.gather(*(backend.engine.choose(*r, backend.scale(len(SCALE))) for r in requests))

            ways = [(whole, service.verify(QUESTION, list(claims), info, frames)), (bare, engine_only())]
            for times, work in ways if number % 2 else reversed(ways):
                start = _cpu_seconds()
                await work
                times.append(_cpu_seconds() - start)
        claims = _claims(rng, info, CACHED)
        await service.verify(QUESTION, claims, info, frames)
        cached, loaded = [], []
        lines = [json.dumps({"phrase": c.phrase, "box": c.box, "time": c.time}) for c in claims]
        for _ in range(rounds):
            start = time.process_time()
            await service.verify(QUESTION, claims, info, frames)
            middle = time.process_time()
            for line in lines:
                json.loads(line)
            cached.append(CACHED / (middle - start))
            loaded.append(CACHED / (time.process_time() - middle))
    finally:
        await service.backend.stop()
    shares = [1 - engine_s / service_s for service_s, engine_s in zip(whole[1:], bare[1:])]  # the first round warms up
    return {
        "referee": folder,
        "batch": BATCH,
        "overhead": round(1 - sum(bare[1:]) / sum(whole[1:]), 3),
        "overhead_min_max": [round(min(shares), 3), round(max(shares), 3)],
        "verdicts_per_cpu_s": round(BATCH / statistics.median(whole[1:])),
        "cached_per_s": round(statistics.median(cached)),
        "claims_json_loads_per_s": round(statistics.median(loaded)),
    }


def _requests(
    backend: EngineBackend, cfg: VerificationConfig, claims: Sequence[Claim], info: FrameInfo, frames: np.ndarray
) -> list[tuple[Prompt, list[np.ndarray]]]:
    """The engine's inputs for the two questions about each claim."""
    requests = []
    for claim in claims:
        pictures = images(frames[info.times.index(claim.time)], drawn_box(claim.box, info.size), cfg)
        turns = (parts(kind, QUESTION, claim.phrase, claim.time, info.size, cfg) for kind in KINDS)
        requests += [(backend.encoder.encode(turn), pictures) for turn in turns]
    return requests


def _cpu_seconds() -> float:
    """CPU seconds of this process and its descendants."""
    this = psutil.Process()
    times = [process.cpu_times() for process in (this, *this.children(recursive=True))]
    return sum(t.user + t.system for t in times)


def _claims(rng: np.random.Generator, info: FrameInfo, n: int) -> list[Claim]:
    """`n` different claims, each at the time of a frame that was shown."""
    drawn = set()
    while len(drawn) < n:
        x, y = (int(v) for v in rng.integers(0, 30, 2))
        width, height = (int(v) for v in rng.integers(8, 26, 2))
        drawn.add(((x, y, x + width, y + height), float(rng.choice(info.times))))
    return [Claim("red circle", tuple(map(float, box)), at, (n, n)) for n, (box, at) in enumerate(sorted(drawn))]


def _clip(contract: SamplingContract) -> tuple[np.ndarray, FrameInfo]:
    with tempfile.TemporaryDirectory() as folder:
        make_shapes(Path(folder) / "shapes", train=1, val=0, test=0, questions=1, workers=1)
        (video,) = (Path(folder) / "shapes").rglob("*.mp4")
        return decode(str(video), contract)
