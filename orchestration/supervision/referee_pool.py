"""The referees as the loop sees them: an ensemble of pools of actors, each replaced when it dies.

Guarantees: a question goes where the answers about the same video are remembered, as long as that actor lives, and to
another one of its pool while it is started anew; no call is waited for longer than its deadline and a margin: an actor
that does not even keep to its own deadline is replaced, and what it was asked is missing, never made up.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray

from evidence.errors import RunFailed
from evidence.supervision import BudgetSpent, Lifecycle, RestartBudget, Supervised
from evidence.types import Claim, FrameInfo, Verdict
from orchestration.supervision.rollout_pool import MAX_RESTARTS, START_TIMEOUT_S
from referee.actor import RefereeActor, RefereeConfig
from referee.service.ensemble import combined
from referee.service.service import ServiceConfig
from referee.service.sources import RefereeSource, read_calibration
from referee.verification import VerificationConfig
from rollout.engine import EngineConfig

# Beyond the deadline that the actor keeps itself: for what is on its way, and frames that have to be fetched.
MARGIN_S = 60.0

log = logging.getLogger(__name__)


class RefereeLost(RunFailed):
    """A referee dies faster than it makes sense to start it anew."""


@dataclass
class _Replica:
    """`counts`: what its actor has counted so far; `past`: what the actors before that had."""

    number: int
    supervised: Supervised[Any] = field(init=False)
    counts: Counter[str] = field(default_factory=Counter)
    past: Counter[str] = field(default_factory=Counter)


class RefereePool:
    """The actors of one referee. To be used from one event loop."""

    def __init__(self, config: RefereeConfig, replicas: int, gpus: float):
        """`replicas` actors with `gpus` GPUs each."""
        self._create = lambda: RefereeActor.options(num_cpus=0, num_gpus=gpus).remote(config)
        self._size, self._timeout_s = replicas, config.service.deadline_s + MARGIN_S
        self._replicas: list[_Replica] = []
        self._budget = RestartBudget(MAX_RESTARTS)
        self.digest = ""
        self.stuck = 0

    @property
    def restarts(self) -> int:
        return self._budget.used

    async def start(self) -> None:
        actors = [self._create() for _ in range(self._size)]
        async with asyncio.timeout(START_TIMEOUT_S):
            digests = await asyncio.gather(*(actor.ready.remote() for actor in actors))
        self.digest = digests[0]
        self._replicas = [self._replica(number, actor) for number, actor in enumerate(actors)]

    def _replica(self, number: int, actor: Any) -> _Replica:
        replica = _Replica(number)

        def create() -> Any:
            replica.past.update(replica.counts)
            replica.counts = Counter()
            return self._create()

        async def ready(successor: Any) -> None:
            async with asyncio.timeout(START_TIMEOUT_S):
                await successor.ready.remote()

        lifecycle = Lifecycle(create, ready, ray.kill, (ray.exceptions.RayActorError, TimeoutError))
        replica.supervised = Supervised(actor, lifecycle, self._budget)
        return replica

    async def ask(self, route: str, method: str, *arguments: object) -> Any:
        """What the actor's `method` returns; None if there is no answer in time. Another actor is asked if it dies.

        Equal routes lead to the same actor. Raises RefereeLost.
        """
        while True:
            replica = self._at(route)
            try:
                for other in self._replicas:
                    other.supervised.raise_if_lost()
                await replica.supervised.settled()
            except BudgetSpent as error:
                raise RefereeLost(f"the referee {error}; Ray's worker logs say why") from None
            actor = replica.supervised.actor
            try:
                async with asyncio.timeout(self._timeout_s):
                    answer = await getattr(actor, method).remote(*arguments)
                    replica.counts = Counter(await actor.stats.remote())
                return answer
            except ray.exceptions.RayActorError as error:
                log.warning("a referee died: %s", error)
                replica.supervised.replace(actor)
            except TimeoutError:
                log.warning("a referee does not answer within %.0f s", self._timeout_s)
                self.stuck += 1
                replica.supervised.replace(actor)
                return None

    async def forget(self) -> None:
        """Empty the memory of every actor that runs: a new one has none."""
        living = [replica.supervised.actor for replica in self._replicas if replica.supervised.running]
        async with asyncio.timeout(self._timeout_s):
            done = await asyncio.gather(*(actor.forget.remote() for actor in living), return_exceptions=True)
        for error in done:
            if isinstance(error, BaseException) and not isinstance(error, ray.exceptions.RayActorError):
                raise error

    def counters(self) -> Counter[str]:
        """RefereeService.stats of all actors there were, as of their last answers; `restarts`; and `stuck`, the calls
        that were not answered."""
        total = Counter(restarts=self.restarts, stuck=self.stuck)
        for replica in self._replicas:
            total.update(replica.past)  # which keeps what is 0, as a sum does not
            total.update(replica.counts)
        return total

    def _at(self, route: str) -> _Replica:
        """The replica that ranks `route` highest, of those that run, or of all if none does: when one dies only its own
        routes move, and they return with it."""
        running = [replica for replica in self._replicas if replica.supervised.running]
        return max(
            running or self._replicas,
            key=lambda replica: hashlib.blake2b(f"{replica.number} {route}".encode(), digest_size=8).digest(),
        )


class Referee:
    """All referees of a run as one. To be used from one event loop."""

    def __init__(self, pools: Sequence[RefereePool]):
        self._pools = list(pools)
        self._disagreement = 0.0
        self._verdicts = 0

    async def start(self) -> None:
        await asyncio.gather(*(pool.start() for pool in self._pools))

    async def verify(
        self, question: str, claims: list[Claim], info: FrameInfo, frames: ray.ObjectRef | np.ndarray
    ) -> list[Verdict | None]:
        """As RefereeService.verify; of several referees the mean, None where any gave none. Raises RefereeLost."""
        asked = (pool.ask(info.key, "verify", question, claims, info, frames) for pool in self._pools)
        answers = [answer or [None] * len(claims) for answer in await asyncio.gather(*asked)]
        verdicts = combined(answers)
        there = [verdict.disagreement for verdict in verdicts if verdict is not None]
        self._disagreement += sum(there)
        self._verdicts += len(there)
        return verdicts

    async def judge(self, question: str, reference: str, answer: str) -> float | None:
        """As RefereeService.judge; of several referees the mean, None if any gave none. Raises RefereeLost."""
        asked = (pool.ask(question, "judge", question, reference, answer) for pool in self._pools)
        scores = await asyncio.gather(*asked)
        return None if None in scores else sum(scores) / len(scores)

    async def forget(self) -> None:
        """Empty the memories, so that everything is judged anew; a cache on disk stays."""
        await asyncio.gather(*(pool.forget() for pool in self._pools))

    @property
    def restarts(self) -> int:
        return sum(pool.restarts for pool in self._pools)

    def counters(self) -> dict[str, float]:
        """The pools' counters added up, and the mean `disagreement` of the verdicts there were."""
        total: Counter[str] = Counter()
        for pool in self._pools:
            total.update(pool.counters())
        return dict(total) | {"disagreement": self._disagreement / max(1, self._verdicts)}


def make_referee(
    sources: Sequence[RefereeSource],
    service: ServiceConfig,
    verification: VerificationConfig,
    engine: Callable[[str], EngineConfig],
    gpus: float,
) -> Referee:
    """The referee of `sources`. `engine` says how the one in a folder is run; `gpus` of each engine.

    Raises BadInput for a calibration that cannot be read; whether it fits is found at the start.
    """

    return Referee([make_pool(source, service, verification, engine, gpus) for source in sources])


def make_pool(
    source: RefereeSource,
    service: ServiceConfig,
    verification: VerificationConfig,
    engine: Callable[[str], EngineConfig],
    gpus: float,
) -> RefereePool:
    """The actors of one source; the rest as for `make_referee`."""
    asked = source if source.url else engine(source.model)
    calibration = read_calibration(source.calibration) if source.calibration else None
    config = RefereeConfig(asked, verification, service, calibration)
    return RefereePool(config, source.replicas, 0.0 if source.url else gpus)
