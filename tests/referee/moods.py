"""A referee's service on a backend whose answers and failures ("moods") are chosen by the test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from evidence.types import Claim
from referee.service.service import RefereeService, ServiceConfig
from referee.verification import VerificationConfig

RED = Claim("red circle", (10.0, 10.0, 30.0, 32.0), 3.0, (0, 0))
CALM = ServiceConfig(deadline_s=30.0)
IMPATIENT = ServiceConfig(deadline_s=0.5)
LIKELY = (0.1, 0.2, 0.7)


class Backend:
    """Answers with `mood(text)`, where `text` is the joined text of a turn, and records the turns it was asked."""

    digest = "a referee"
    setting = ""
    tile = 1

    def __init__(self, mood: Callable[[str], Awaitable[tuple[float, ...]]]):
        self.mood = mood
        self.asked: list[str] = []
        self.turns: list[Any] = []
        self.images: list[list[np.ndarray]] = []
        self.cancelled = 0
        self.started = False

    async def start(self) -> None:
        self.started = True

    async def choose(self, turn: Any, images: Any, n: int) -> np.ndarray:
        text = "".join(part for part in turn if isinstance(part, str))
        self.asked.append(text)
        self.turns.append(turn)
        self.images.append(list(images))
        try:
            return np.array((await self.mood(text))[:n], np.float32)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def stop(self) -> None: ...


async def calm(text: str) -> tuple[float, ...]:
    await asyncio.sleep(0)
    return (*LIKELY, 0.0)


def failing(times: int, error: Exception, then: tuple[float, ...] = LIKELY) -> Callable:
    """A mood in which each question first fails `times` times."""
    attempts: dict[str, int] = {}

    async def mood(text: str) -> tuple[float, ...]:
        attempts[text] = attempts.get(text, 0) + 1
        if attempts[text] <= times:
            raise error
        return then

    return mood


async def never(text: str) -> tuple[float, ...]:
    await asyncio.Event().wait()
    raise AssertionError


def service(mood: Callable = calm, config: ServiceConfig = CALM, **verification: Any) -> RefereeService:
    naps: list[float] = []

    async def sleep(seconds: float) -> None:
        naps.append(seconds)
        await asyncio.sleep(0)

    service = RefereeService(
        Backend(mood), VerificationConfig(**{"crop_size": (56, 56), **verification}), config, sleep=sleep
    )
    service.naps = naps  # type: ignore[attr-defined]
    return service


def moved(box: Any = RED.box, time: float = 3.0, phrase: str = "red circle") -> Claim:
    return Claim(phrase, box, time, (0, 0))


def some(counts: Any, *names: str) -> tuple[int, ...]:
    return tuple(counts[name] for name in names)
