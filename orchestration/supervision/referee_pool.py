"""The loop's view of the referee: an ensemble of actor pools, whose actors are replaced when they die.

Guarantees: questions about one video go to the same actor, which caches its answers, and to another actor of the pool
while that one restarts or is much busier than its peers; no call waits longer than its deadline plus a margin: an actor
that misses its own deadline by that much is replaced (fleet.py), and its answer is reported as missing, never invented.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import ray

from evidence.errors import RunFailed
from evidence.limits import Limits
from evidence.supervision import actor_class
from evidence.types import Claim, FrameInfo, Verdict
from orchestration.reporting.stalls import RefereeFacts
from orchestration.supervision.fleet import Fleet, Member
from orchestration.supervision.waiting import died
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


class RefereeLost(RunFailed):
    """Every actor of a referee is down and was restarted too often."""


@dataclass(eq=False)
class _Replica(Member):
    """An actor and its replacements. digest: of the referee that it runs. asking: calls under way. counts: the counters
    of the current actor. past: those of its predecessors."""

    digest: str = ""
    asking: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    past: Counter[str] = field(default_factory=Counter)


class RefereePool:
    """The actors of one referee. Use it from one event loop."""

    def __init__(self, config: RefereeConfig, replicas: int, gpus: float, limits: Limits):
        """`replicas` actors with `gpus` GPUs each."""
        referee_class = actor_class(RefereeActor).options(num_cpus=0, num_gpus=gpus)
        self._timeout_s = config.service.deadline_s + MARGIN_S
        self._replicas = [_Replica(name=f"referee {number}") for number in range(replicas)]
        self._fleet: Fleet[_Replica] = Fleet(
            self._replicas, limits, lambda: referee_class.remote(config), self._load, _forget_counts, RefereeLost
        )
        self.stuck = 0

    @property
    def restarts(self) -> int:
        return self._fleet.restarts

    @property
    def digest(self) -> str:
        return self._replicas[0].digest

    async def start(self) -> None:
        await self._fleet.start()

    def stop(self) -> None:
        """End the actors and what the pool does in the background."""
        self._fleet.stop()

    async def _load(self, replica: _Replica, actor: Any) -> None:
        replica.digest = await actor.ready.remote()

    async def ask(self, route: str, method: str, *arguments: object) -> Any:
        """Call `method` of the actor for `route`; equal routes lead to the same actor unless it is busy.

        Returns None if no answer arrives in time. If the actor dies, another one is asked. Raises RefereeLost.
        """
        while True:
            await self._fleet.any_running()
            replica = self._at(route)
            actor, asking = replica.supervised.actor, f"answering `{method}`"
            replica.asking += 1
            try:
                async with asyncio.timeout(self._timeout_s):
                    answer = await getattr(actor, method).remote(*arguments)
                    counts = Counter(await actor.stats.remote())
                if replica.running and replica.supervised.actor is actor:
                    replica.counts = counts
                return answer
            except ray.exceptions.RayTaskError:  # which is also an instance of its cause's class
                raise
            except ray.exceptions.RayActorError:
                self._fleet.replace(replica, actor, died(replica.name, asking))
            except TimeoutError:
                self.stuck += 1
                self._fleet.replace(replica, actor, self._no_answer(replica, asking))
                return None
            finally:
                replica.asking -= 1

    def facts(self) -> list[RefereeFacts]:
        """What each actor does."""
        return [RefereeFacts(replica.name, replica.asking, not replica.running) for replica in self._replicas]

    async def forget(self) -> None:
        """Clear the in-memory cache of every running actor; a replacement starts with an empty one."""
        running = [replica for replica in self._replicas if replica.running]
        await asyncio.gather(*map(self._forgotten, running))

    async def _forgotten(self, replica: _Replica) -> None:
        actor, doing = replica.supervised.actor, "clearing its cache"
        try:
            async with asyncio.timeout(self._timeout_s):
                await actor.forget.remote()
        except ray.exceptions.RayTaskError:
            raise
        except ray.exceptions.RayActorError:
            self._fleet.replace(replica, actor, died(replica.name, doing))
        except TimeoutError:
            self._fleet.replace(replica, actor, self._no_answer(replica, doing))

    def _no_answer(self, replica: _Replica, doing: str) -> str:
        within = f"{self._timeout_s:g} s (referee.deadline_s and {MARGIN_S:g} s)"
        return f"{replica.name} did not answer within {within} while {doing}"

    def counters(self) -> Counter[str]:
        """RefereeService.stats summed over all actors, dead ones included, as of their last answers; `restarts`; and
        `stuck`, the number of calls that timed out."""
        total = Counter(restarts=self.restarts, stuck=self.stuck)
        for replica in self._replicas:
            total.update(replica.past)  # update keeps counters that are 0; adding Counters drops them
            total.update(replica.counts)
        return total

    def _at(self, route: str) -> _Replica:
        """The replica that ranks `route` highest among the running ones (rendezvous hashing): when one dies, only its
        own routes move, and they return once it runs again. At least one must run.

        Replicas that already answer more than LOAD_FACTOR times the mean are passed over, since hashing alone gives the
        busiest of many more than twice the mean (bounded loads: Mirrokni, Thorup, Zadimoghaddam, SODA 2018).
        """
        running = [replica for replica in self._replicas if replica.running]
        most = math.ceil(LOAD_FACTOR * (1 + sum(replica.asking for replica in running)) / len(running))
        return max(
            (replica for replica in running if replica.asking < most),
            key=lambda replica: hashlib.blake2b(f"{replica.name} {route}".encode(), digest_size=8).digest(),
        )


def _forget_counts(replica: _Replica) -> None:
    """Move the counters of an actor that went down to those of the past."""
    if not replica.running:
        replica.past.update(replica.counts)
        replica.counts = Counter()


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
        if len(self._pools) == 1:
            return self._pools[0].facts()
        facts = [(number, actor) for number, pool in enumerate(self._pools) for actor in pool.facts()]
        return [replace(actor, name=f"{actor.name} of ensemble member {number}") for number, actor in facts]

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
    limits: Limits,
) -> Referee:
    """The referee made of `sources`. `engine`: the engine configuration for a model folder. `gpus`: GPUs per engine.

    Raises BadInput for a calibration that cannot be read; whether it fits the referee is checked at the start.
    """
    return Referee([make_pool(source, service, verification, engine, gpus, limits) for source in sources])


def make_pool(
    source: RefereeSource,
    service: ServiceConfig,
    verification: VerificationConfig,
    engine: Callable[[str], EngineConfig],
    gpus: float,
    limits: Limits,
) -> RefereePool:
    """The actors of one source; the other arguments are those of `make_referee`."""
    backend = source if source.url else engine(source.model)
    if source.gpu_memory_utilization is not None:
        backend = replace(backend, gpu_memory_utilization=source.gpu_memory_utilization)
    calibration = read_calibration(source.calibration) if source.calibration else None
    config = RefereeConfig(backend, verification, service, calibration)
    return RefereePool(config, source.replicas, 0.0 if source.url else gpus, limits)
