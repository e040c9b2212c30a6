"""The loop's view of the referee: an ensemble of actor pools, whose actors are replaced when they die.

Guarantees: questions about one video go to the same actor, which caches its answers, and to another actor of the pool
while that one restarts or is much busier than its peers; no call waits longer than its deadline plus a margin: an actor
that misses its own deadline by that much is replaced, and its answer is reported as missing, never invented.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray

from evidence.errors import RunFailed
from evidence.supervision import BudgetSpent, Lifecycle, RestartBudget, Supervised, actor_class
from evidence.types import Claim, FrameInfo, Verdict
from orchestration.reporting.stalls import RefereeFacts
from orchestration.supervision.rollout_pool import MAX_RESTARTS
from orchestration.supervision.waiting import died, no_answer
from referee.actor import RefereeActor, RefereeConfig
from referee.service.ensemble import combine_verdicts
from referee.service.service import ServiceConfig
from referee.service.sources import RefereeSource, read_calibration
from referee.verification import VerificationConfig
from rollout.engine import EngineConfig

# Added to the deadline that the actor enforces itself: time for messages in flight and for fetching frames.
MARGIN_S = 60.0
# A lower factor balances better, a higher one keeps more questions about a video with the actor that caches it.
LOAD_FACTOR = 1.25

log = logging.getLogger(__name__)


class RefereeLost(RunFailed):
    """A referee died more often than the restart budget allows."""


@dataclass
class _Replica:
    """An actor and its replacements. asking: calls under way. counts: the counters of the current actor. past: those of
    its predecessors."""

    number: int
    supervised: Supervised[Any] = field(init=False)
    asking: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    past: Counter[str] = field(default_factory=Counter)


class RefereePool:
    """The actors of one referee. Use it from one event loop."""

    def __init__(self, config: RefereeConfig, replicas: int, gpus: float, start_s: float):
        """`replicas` actors with `gpus` GPUs each, each of which may take `start_s` seconds to start."""
        referee_class = actor_class(RefereeActor).options(num_cpus=0, num_gpus=gpus)
        self._create = lambda: referee_class.remote(config)
        self._size, self._timeout_s, self._start_s = replicas, config.service.deadline_s + MARGIN_S, start_s
        self._replicas: list[_Replica] = []
        self._budget = RestartBudget(MAX_RESTARTS)
        self.digest = ""
        self.stuck = 0

    @property
    def restarts(self) -> int:
        return self._budget.used

    async def start(self) -> None:
        actors = [self._create() for _ in range(self._size)]
        digests = await asyncio.gather(*(self._first_ready(number, actor) for number, actor in enumerate(actors)))
        self.digest = digests[0]
        self._replicas = [self._replica(number, actor) for number, actor in enumerate(actors)]

    async def _first_ready(self, number: int, actor: Any) -> str:
        try:
            async with asyncio.timeout(self._start_s):
                return await actor.ready.remote()
        except TimeoutError:
            reason = no_answer(f"referee {number}", "starting", self._start_s, "start_s")
        except ray.exceptions.RayActorError:
            reason = died(f"referee {number}", "starting")
        raise RefereeLost(reason)

    def _replica(self, number: int, actor: Any) -> _Replica:
        replica = _Replica(number)

        def create() -> Any:
            replica.past.update(replica.counts)
            replica.counts = Counter()
            return self._create()

        async def ready(successor: Any) -> None:
            async with asyncio.timeout(self._start_s):
                await successor.ready.remote()

        lifecycle = Lifecycle(create, ready, ray.kill, (ray.exceptions.RayActorError, TimeoutError))
        replica.supervised = Supervised(actor, lifecycle, self._budget)
        return replica

    async def ask(self, route: str, method: str, *arguments: object) -> Any:
        """Call `method` of the actor for `route`; equal routes lead to the same actor unless it is busy.

        Returns None if no answer arrives in time. If the actor dies, another one is asked. Raises RefereeLost.
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
            replica.asking += 1
            try:
                async with asyncio.timeout(self._timeout_s):
                    answer = await getattr(actor, method).remote(*arguments)
                    replica.counts = Counter(await actor.stats.remote())
                return answer
            except ray.exceptions.RayActorError as error:
                log.warning("a referee died: %s", error)
                replica.supervised.replace(actor)
            except TimeoutError:
                log.warning("a referee did not answer within %.0f s and is restarted", self._timeout_s)
                self.stuck += 1
                replica.supervised.replace(actor)
                return None
            finally:
                replica.asking -= 1

    def facts(self, name: str) -> list[RefereeFacts]:
        """What each actor does. `name`: of the pool."""
        return [
            RefereeFacts(f"{name} {replica.number}", replica.asking, not replica.supervised.running)
            for replica in self._replicas
        ]

    async def forget(self) -> None:
        """Clear the in-memory cache of every running actor; a replacement starts with an empty one."""
        running = [replica.supervised.actor for replica in self._replicas if replica.supervised.running]
        async with asyncio.timeout(self._timeout_s):
            outcomes = await asyncio.gather(*(actor.forget.remote() for actor in running), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, ray.exceptions.RayActorError):
                raise outcome

    def counters(self) -> Counter[str]:
        """RefereeService.stats summed over all actors, dead ones included, as of their last answers; `restarts`; and
        `stuck`, the number of calls that timed out."""
        total = Counter(restarts=self.restarts, stuck=self.stuck)
        for replica in self._replicas:
            total.update(replica.past)  # update keeps counters that are 0; adding Counters drops them
            total.update(replica.counts)
        return total

    def _at(self, route: str) -> _Replica:
        """The replica that ranks `route` highest among the running ones, or among all if none runs (rendezvous
        hashing): when one dies, only its own routes move, and they return once it runs again.

        Replicas that already answer more than LOAD_FACTOR times the mean are passed over, since hashing alone gives the
        busiest of many more than twice the mean (bounded loads: Mirrokni, Thorup, Zadimoghaddam, SODA 2018).
        """
        running = [replica for replica in self._replicas if replica.supervised.running] or self._replicas
        most = math.ceil(LOAD_FACTOR * (1 + sum(replica.asking for replica in running)) / len(running))
        return max(
            (replica for replica in running if replica.asking < most),
            key=lambda replica: hashlib.blake2b(f"{replica.number} {route}".encode(), digest_size=8).digest(),
        )


class Referee:
    """All referees of a run as one. Use it from one event loop."""

    def __init__(self, pools: Sequence[RefereePool]):
        self._pools = list(pools)
        self._disagreement = 0.0
        self._verdicts = 0

    async def start(self) -> None:
        await asyncio.gather(*(pool.start() for pool in self._pools))

    async def verify(
        self, question: str, claims: list[Claim], info: FrameInfo, frames: ray.ObjectRef | np.ndarray
    ) -> list[Verdict | None]:
        """RefereeService.verify, averaged over the referees; None where any verdict is missing. Raises RefereeLost."""
        calls = (pool.ask(info.key, "verify", question, claims, info, frames) for pool in self._pools)
        answers = [answer or [None] * len(claims) for answer in await asyncio.gather(*calls)]
        verdicts = combine_verdicts(answers)
        disagreements = [verdict.disagreement for verdict in verdicts if verdict is not None]
        self._disagreement += sum(disagreements)
        self._verdicts += len(disagreements)
        return verdicts

    async def judge(self, question: str, reference: str, answer: str) -> float | None:
        """RefereeService.judge, averaged over the referees; None if any score is missing. Raises RefereeLost."""
        calls = (pool.ask(question, "judge", question, reference, answer) for pool in self._pools)
        scores = await asyncio.gather(*calls)
        return None if None in scores else sum(scores) / len(scores)

    def facts(self) -> list[RefereeFacts]:
        """What each actor of each referee does."""
        several = len(self._pools) > 1
        names = [f"referee {number}, actor" if several else "referee" for number in range(len(self._pools))]
        return [facts for name, pool in zip(names, self._pools) for facts in pool.facts(name)]

    async def forget(self) -> None:
        """Clear the in-memory caches, so that everything is judged again; a cache on disk stays."""
        await asyncio.gather(*(pool.forget() for pool in self._pools))

    @property
    def restarts(self) -> int:
        return sum(pool.restarts for pool in self._pools)

    def counters(self) -> dict[str, float]:
        """The pools' counters, summed, and `disagreement`, its mean over the verdicts given."""
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
    start_s: float,
) -> Referee:
    """The referee made of `sources`. `engine`: the engine configuration for a model folder. `gpus`: GPUs per engine.
    `start_s`: as in RefereePool.

    Raises BadInput for a calibration that cannot be read; whether it fits the referee is checked at the start.
    """
    return Referee([make_pool(source, service, verification, engine, gpus, start_s) for source in sources])


def make_pool(
    source: RefereeSource,
    service: ServiceConfig,
    verification: VerificationConfig,
    engine: Callable[[str], EngineConfig],
    gpus: float,
    start_s: float,
) -> RefereePool:
    """The actors of one source; the other arguments are those of `make_referee`."""
    backend = source if source.url else engine(source.model)
    calibration = read_calibration(source.calibration) if source.calibration else None
    config = RefereeConfig(backend, verification, service, calibration)
    return RefereePool(config, source.replicas, 0.0 if source.url else gpus, start_s)
