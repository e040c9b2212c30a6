"""The referee: a Ray actor with one backend and the service around it (referee/service/service.py).

A defect raises; a dead engine ends the actor's process, and starting it again is its supervisor's business.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import ray

from evidence.types import Claim, FrameInfo, Verdict
from referee.service.backend import Backend
from referee.service.cache import Answer
from referee.service.engine_backend import EngineBackend
from referee.service.http_backend import HttpBackend
from referee.service.service import RefereeService, ServiceConfig
from referee.service.sources import Calibration, RefereeSource
from referee.verification import VerificationConfig
from rollout.engine import EngineConfig


@dataclass
class RefereeConfig:
    """An engine to start or an endpoint to ask, what it is asked, and how."""

    asked: EngineConfig | RefereeSource
    verification: VerificationConfig = field(default_factory=VerificationConfig)
    service: ServiceConfig = field(default_factory=ServiceConfig)
    calibration: Calibration | None = None


@ray.remote
class RefereeActor:
    """Start it with `RefereeActor.options(...).remote(config)` and await `ready()` before anything else."""

    def __init__(self, config: RefereeConfig):
        self.config = config
        self.service: RefereeService | None = None

    async def ready(self) -> str:
        """Start the backend, once; returns the referee's digest. Raises BadInput, also for another's calibration."""
        if self.service is None:
            config = self.config
            backend = make_backend(config)
            if config.calibration is not None:
                config.calibration.require(backend.digest)
            temperature = config.calibration.temperature if config.calibration else None
            service = RefereeService(backend, config.verification, config.service, temperature)
            await service.start()
            self.service = service
        return self.service.backend.digest

    async def verify(
        self, question: str, claims: list[Claim], info: FrameInfo, frames: np.ndarray
    ) -> list[Verdict | None]:
        """As RefereeService.verify."""
        return await self.service.verify(question, claims, info, frames)

    async def probabilities(
        self, question: str, claims: list[Claim], info: FrameInfo, frames: np.ndarray
    ) -> list[dict[str, Answer] | None]:
        """As RefereeService.probabilities."""
        return await self.service.probabilities(question, claims, info, frames)

    async def judge(self, question: str, reference: str, answer: str) -> float | None:
        """As RefereeService.judge."""
        return await self.service.judge(question, reference, answer)

    async def forget(self) -> None:
        """Empty the memory, so that everything is judged anew; a cache on disk stays."""
        self.service.forget()

    async def stats(self) -> dict[str, int]:
        """As RefereeService.stats."""
        return self.service.stats()

    async def stop(self) -> None:
        """End the engine's processes."""
        if self.service is not None:
            await self.service.backend.stop()
            self.service = None


def make_backend(config: RefereeConfig) -> Backend:
    """Raises BadInput."""
    if isinstance(config.asked, EngineConfig):
        return EngineBackend(config.asked)
    return HttpBackend(
        config.asked,
        logprobs=config.verification.reading == "expected",
        max_concurrent=config.service.max_concurrent,
        timeout_s=config.service.deadline_s,
    )
