"""The part of benchmarks/reward.py that measures a referee: overhead of the service over its engine, what the cache of
preprocessed images saves, and cached verdicts.

64 claims about a clip of the embedded world, which are 128 questions, go in turns through the service (crop, drawing,
keys, tokens, engine, reading), to the same engine directly, with tokens and images made before the clock starts, and
through a second service. CPU seconds are those of this process and the engine's, since other programs on the machine
change the wall time. All boxes differ, so that no verdict is found in a cache.

`overhead`: the share of the service's CPU seconds, over all rounds, that the engine alone does not need.
`image_cache`: the CPU seconds of the second service, whose engine keeps no preprocessed images, over those of the
first, whose engine preprocesses the images of a claim once for both of its questions. `image_cache_difference`: the
largest difference between their verdicts.
`cached_per_s`: cached verdicts per CPU second of this process, next to json.loads of as many claims in the same run.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil

from evidence.sampling import SamplingContract
from evidence.types import Claim, FrameInfo, Prompt
from orchestration.cluster_settings import ClusterConfig
from orchestration.config import load_config
from orchestration.supervision.engines import EngineSizes, referee_engine
from orchestration.supervision.standalone_referee import StandaloneConfig
from referee.service.engine_backend import EngineBackend
from referee.service.service import RefereeService, ServiceConfig
from referee.verification import KINDS, SCALE, VerificationConfig, drawn_box, images, parts
from rollout.dataset.shapes import make_shapes
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
    sizes = EngineSizes(max_model_len=512, max_num_seqs=BATCH)
    engine = referee_engine(sizes, ClusterConfig(kv_cache_gib=0.25), folder)
    backend = EngineBackend(engine)
    service = RefereeService(backend, cfg, ServiceConfig())
    uncached = RefereeService(EngineBackend(replace(engine, image_cache_gib=0.0)), cfg, ServiceConfig())
    await service.start()
    await uncached.start()
    rng = np.random.default_rng(seed)
    try:
        seconds, difference = await _in_turns(service, uncached, info, frames, rounds, rng)
        rates = await _cached(service, _claims(rng, info, CACHED), info, frames, rounds)
    finally:
        await backend.stop()
        await uncached.backend.stop()
    whole, bare = seconds["service"], seconds["engine"]
    shares = [1 - engine_s / service_s for service_s, engine_s in zip(whole, bare)]
    return {
        "referee": folder,
        "batch": BATCH,
        "overhead": round(1 - sum(bare) / sum(whole), 3),
        "overhead_min_max": [round(min(shares), 3), round(max(shares), 3)],
        "image_cache": round(sum(seconds["uncached"]) / sum(whole), 2),
        "image_cache_difference": difference,
        "verdicts_per_cpu_s": round(BATCH / statistics.median(whole)),
        **rates,
    }


async def _in_turns(
    service: RefereeService,
    uncached: RefereeService,
    info: FrameInfo,
    frames: np.ndarray,
    rounds: int,
    rng: np.random.Generator,
) -> tuple[dict[str, list[float]], float]:
    """CPU seconds by round of the service, of its engine alone and of the other service; and the largest difference
    between verdicts of the two services."""
    backend, cfg = service.backend, service.verification
    seconds: dict[str, list[float]] = {"service": [], "engine": [], "uncached": []}
    difference = 0.0
    for number in range(rounds + 1):  # the first round warms up
        claims, others = np.split(np.array(_claims(rng, info, 2 * BATCH), object), 2)
        requests = _requests(backend, cfg, others, info, frames)
        ways = {
            "service": service.verify(QUESTION, list(claims), info, frames),
            "engine": _chosen(backend, requests),
            "uncached": uncached.verify(QUESTION, list(claims), info, frames),
        }
        answers = {}
        for name in list(ways) if number % 2 else reversed(ways):
            start = _cpu_seconds()
            answers[name] = await ways[name]
            if number:
                seconds[name].append(_cpu_seconds() - start)
        pairs = zip(answers["service"], answers["uncached"])
        apart = (abs(np.subtract((a.relevance, a.localization), (b.relevance, b.localization))) for a, b in pairs)
        difference = max(difference, float(np.max(list(apart))))
    return seconds, difference


async def _chosen(backend: EngineBackend, requests: list[tuple[Prompt, list[np.ndarray]]]) -> list[np.ndarray]:
    return await asyncio.gather(*(backend.engine.choose(*request, backend.scale(len(SCALE))) for request in requests))


async def _cached(
    service: RefereeService, claims: list[Claim], info: FrameInfo, frames: np.ndarray, rounds: int
) -> dict[str, int]:
    """Verdicts that are cached and json.loads of as many claims, per CPU second of this process."""
    await service.verify(QUESTION, claims, info, frames)
    lines = [json.dumps({"phrase": c.phrase, "box": c.box, "time": c.time}) for c in claims]
    cached, loaded = [], []
    for _ in range(rounds):
        start = time.process_time()
        await service.verify(QUESTION, claims, info, frames)
        middle = time.process_time()
        for line in lines:
            json.loads(line)
        cached.append(CACHED / (middle - start))
        loaded.append(CACHED / (time.process_time() - middle))
    return {
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
