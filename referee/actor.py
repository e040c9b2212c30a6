"""The referee: a Ray actor with one backend and the service around it (referee/service/service.py).

A defect raises. A dead engine ends the actor's process; its supervisor restarts it.
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
    """One referee. `source`: the engine to start, or the endpoint that serves the referee."""

    source: EngineConfig | RefereeSource
    verification: VerificationConfig
    service: ServiceConfig = field(default_factory=ServiceConfig)
    calibration: Calibration | None = None


@ray.remote
class RefereeActor:
    """Create it with `RefereeActor.options(...).remote(config)` and await `ready()` before any other call."""

    def __init__(self, config: RefereeConfig):
        self.config = config
        self.service: RefereeService | None = None

    async def ready(self) -> str:
        """Start the backend if it is not running, and return the referee's digest.

        Raises BadInput if the backend cannot be used, or if the calibration was made for another referee.
        """
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

    @property
    def _started(self) -> RefereeService:
        if self.service is None:
            raise RuntimeError("the referee has not been started: await ready() first")
        return self.service

    async def verify(
        self, question: str, claims: list[Claim], info: FrameInfo, frames: np.ndarray
    ) -> list[Verdict | None]:
        """See RefereeService.verify."""
        return await self._started.verify(question, claims, info, frames)

    async def probabilities(
        self, question: str, claims: list[Claim], info: FrameInfo, frames: np.ndarray
    ) -> list[dict[str, Answer] | None]:
        """See RefereeService.probabilities."""
        return await self._started.probabilities(question, claims, info, frames)

    async def judge(self, question: str, reference: str, answer: str) -> float | None:
        """See RefereeService.judge."""
        return await self._started.judge(question, reference, answer)

    async def forget(self) -> None:
        """See RefereeService.forget."""
        self._started.forget()

    async def ping(self) -> None:
        """Return once the backend has answered, as far as it is part of this actor: an endpoint is not asked."""
        backend = self._started.backend
        if isinstance(backend, EngineBackend):
            await backend.ping()

    async def stats(self) -> dict[str, int]:
        """See RefereeService.stats."""
        return self._started.stats()

    async def stop(self) -> None:
        """Stop the backend, and with it the engine's processes."""
        if self.service is not None:
            await self.service.backend.stop()
            self.service = None


def make_backend(config: RefereeConfig) -> Backend:
    """The backend that the config asks for. Raises BadInput."""
    if isinstance(config.source, EngineConfig):
        return EngineBackend(config.source)
    return HttpBackend(
        config.source,
        logprobs=config.verification.reading == "expected",
        max_concurrent=config.service.max_concurrent,
        timeout_s=config.service.deadline_s,
    )
