"""The referee: a Ray actor that owns a vLLM engine and gives verdicts on claims (promise 8).

Guarantees: equal questions are asked once; `verify` returns within the deadline, with None for each claim whose verdict
is not there by then, never a made-up one. A failing engine raises: restarting it is its supervisor's business.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import ray

from evidence.errors import BadInput
from evidence.geometry import nearest_frame
from evidence.types import Claim, FrameInfo, Verdict
from referee.cache import VerdictCache, VerdictKey
from referee.verification import KINDS, SCALE, VerificationConfig, drawn_box, images, parts, read_scale
from rollout.engine import Engine, EngineConfig
from rollout.prompt import ChatEncoder


@dataclass
class RefereeConfig:
    """The referee's engine, what it is asked, how long it may take for one `verify`, and how much it remembers."""

    engine: EngineConfig
    verification: VerificationConfig = field(default_factory=VerificationConfig)
    deadline_s: float = 60.0
    cache_entries: int = 200_000


@dataclass(frozen=True)
class _Question:
    """One thing to ask about one frame: what is put, and the box to draw."""

    turn: list[str | tuple[int, int]]
    frame: int
    box: tuple[int, int, int, int]


@ray.remote
class RefereeActor:
    """Start it with `RefereeActor.options(...).remote(config)` and await `ready()` before anything else."""

    def __init__(self, config: RefereeConfig):
        self.config = config
        self.encoder = ChatEncoder(config.engine.model)
        self.scale = scale_token_ids(self.encoder)
        self.digest = model_digest(config.engine.model)
        self.cache = VerdictCache(config.cache_entries)
        self.counts: Counter[str] = Counter()
        self.engine: Engine | None = None

    async def ready(self) -> str:
        """Start the engine, once; returns the digest of the referee's weights and tokenizer."""
        if self.engine is None:
            self.engine = await Engine.start(self.config.engine, self.encoder.banned_ids)
        return self.digest

    async def verify(
        self, question: str, claims: list[Claim], info: FrameInfo, frames: np.ndarray
    ) -> list[Verdict | None]:
        """One verdict per claim, in order; None for those not ready by the deadline. `frames`: uint8 [n, H, W, 3].

        Claims have a box with at least a pixel inside the frame, and a time; the frame judged is the shown one nearest
        to it. Both questions of a claim, and all claims, are asked at the same time.
        """
        asked = [{kind: self._question(kind, question, claim, info) for kind in KINDS} for claim in claims]
        questions = {key: put for by_kind in asked for key, put in by_kind.values()}
        self.counts["claims"] += len(claims)
        self.counts["questions"] += len(questions)
        readings = {key: self.cache.get(key) for key in questions}
        open_questions = {
            asyncio.create_task(self._ask(questions[key], frames)): key
            for key, reading in readings.items()
            if reading is None
        }
        if open_questions:
            done, late = await asyncio.wait(open_questions, timeout=self.config.deadline_s)
            for task in late:
                task.cancel()
            for task in done:
                if task.exception() is not None:
                    self.engine.leave_if_dead()
                key = open_questions[task]
                readings[key] = task.result()
                self.cache.put(key, task.result())
        verdicts = []
        for by_kind in asked:
            relevance, localization = (readings[by_kind[kind][0]] for kind in KINDS)
            missing = relevance is None or localization is None
            verdicts.append(None if missing else Verdict(relevance, localization))
        self.counts["missing"] += verdicts.count(None)
        return verdicts

    async def forget(self) -> None:
        """Empty the cache, so that everything is judged anew."""
        self.cache = VerdictCache(self.config.cache_entries)

    async def stats(self) -> dict[str, int]:
        """Since the start: claims, questions (without repeats inside a call), missing verdicts; the cache's hits,
        misses and entries."""
        cache = {"cache_hits": self.cache.hits, "cache_misses": self.cache.misses, "cache_entries": len(self.cache)}
        return {"claims": 0, "questions": 0, "missing": 0} | self.counts | cache

    async def stop(self) -> None:
        """End the engine's processes."""
        if self.engine is not None:
            await self.engine.stop()
            self.engine = None

    def _question(self, kind: str, question: str, claim: Claim, info: FrameInfo) -> tuple[VerdictKey, _Question]:
        config = self.config.verification
        frame = nearest_frame(info.times, claim.time)
        box = drawn_box(claim.box, info.size)
        turn = parts(kind, question, claim.phrase, info.times[frame], info.size, config)
        key = VerdictKey(
            referee=self.digest,
            wording=config.wording.version,
            kind=kind,
            reading=config.reading,
            text=tuple(part for part in turn if isinstance(part, str)),
            pixels=(info.key, frame, box, tuple(config.crop_size), config.pad_share),
        )
        return key, _Question(turn, frame, box)

    async def _ask(self, put: _Question, frames: np.ndarray) -> float:
        config = self.config.verification
        shown = images(frames[put.frame], put.box, config)
        probabilities = await self.engine.choose(self.encoder.encode(put.turn), shown, self.scale)
        return read_scale(probabilities, config.reading)


def scale_token_ids(encoder: ChatEncoder) -> list[int]:
    """The ids of the scale's tokens "0", "1", "2". Raises BadInput if the tokenizer has no such single tokens."""
    ids = [encoder.tokenizer(token, add_special_tokens=False)["input_ids"] for token in SCALE]
    if any(len(one) != 1 for one in ids):
        raise BadInput(f"referee: its tokenizer does not write each of {', '.join(SCALE)} as one token; choose another")
    return [one[0] for one in ids]


def model_digest(folder: str) -> str:
    """SHA-256 over the names and bytes of a model folder's files: any change of weights or tokenizer changes it."""
    digest = hashlib.sha256()
    for file in sorted(path for path in Path(folder).iterdir() if path.suffix in (".safetensors", ".json", ".jinja")):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:32]
