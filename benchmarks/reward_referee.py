"""The part of benchmarks/reward.py that asks a referee: what it costs beside the engine, and what is remembered.

`overhead`: 64 claims about a clip of the embedded world, 128 questions, are put to the service (crop, drawing, keys,
tokens, engine, reading) and, in turns, as many straight to the same engine, their tokens and images made before the
clock starts: the share of the service's CPU seconds, the engine's process included, that the engine alone does not
take, over all rounds. CPU seconds, since whatever else runs on the machine makes any one wait long. All boxes differ,
so that nothing is remembered by either. `cached_per_s`: verdicts that are remembered, a CPU second of this process,
beside json.loads of as many claims in the same run.
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
    """The figures of one referee, a folder."""
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
            put = _put(backend, cfg, others, info, frames)

            async def alone(put: list[tuple[Prompt, list[np.ndarray]]] = put) -> None:
                await asyncio.gather(*(backend.engine.choose(*one, backend.scale(len(SCALE))) for one in put))

            ways = [(whole, service.verify(QUESTION, list(claims), info, frames)), (bare, alone())]
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
    shares = [1 - alone / all_of_it for all_of_it, alone in zip(whole[1:], bare[1:])]  # the first round warms up
    return {
        "referee": folder,
        "batch": BATCH,
        "overhead": round(1 - sum(bare[1:]) / sum(whole[1:]), 3),
        "overhead_min_max": [round(min(shares), 3), round(max(shares), 3)],
        "verdicts_per_cpu_s": round(BATCH / statistics.median(whole[1:])),
        "cached_per_s": round(statistics.median(cached)),
        "claims_json_loads_per_s": round(statistics.median(loaded)),
    }


def _put(
    backend: EngineBackend, cfg: VerificationConfig, claims: Sequence[Claim], info: FrameInfo, frames: np.ndarray
) -> list[tuple[Prompt, list[np.ndarray]]]:
    """What an engine is handed for the two questions about each claim."""
    put = []
    for claim in claims:
        shown = images(frames[info.times.index(claim.time)], drawn_box(claim.box, info.size), cfg)
        turns = (parts(kind, QUESTION, claim.phrase, claim.time, info.size, cfg) for kind in KINDS)
        put += [(backend.encoder.encode(turn), shown) for turn in turns]
    return put


def _cpu_seconds() -> float:
    """Of this process and those that it started."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def _claims(rng: np.random.Generator, info: FrameInfo, n: int) -> list[Claim]:
    """Different ones, each about a frame that was shown."""
    made = set()
    while len(made) < n:
        x, y = (int(v) for v in rng.integers(0, 30, 2))
        width, height = (int(v) for v in rng.integers(8, 26, 2))
        made.add(((x, y, x + width, y + height), float(rng.choice(info.times))))
    return [Claim("red circle", tuple(map(float, box)), at, (n, n)) for n, (box, at) in enumerate(sorted(made))]


def _clip(contract: SamplingContract) -> tuple[np.ndarray, FrameInfo]:
    with tempfile.TemporaryDirectory() as folder:
        make_shapes(Path(folder) / "shapes", train=1, val=0, test=0, questions=1, workers=1)
        (video,) = (Path(folder) / "shapes").rglob("*.mp4")
        return decode(str(video), contract)
