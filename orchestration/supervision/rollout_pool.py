"""The pool of rollout engines: how groups reach the engines, and what happens to engines that fail them.

Guarantees: a group starts only on an engine that admission allows, so a slow update delays groups instead of ageing
them; groups are shared over the engines (dispatch.py); an engine that dies, hangs or falls silent is restarted
(fleet.py) and brought to the published weights before it is used (weight_updates.py); every wait has a timeout; the
engine drops what a cancelled caller had asked for; at most one engine is set aside from training (aside.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import ray

from evidence.errors import RunFailed
from evidence.limits import Limits
from evidence.supervision import actor_class
from evidence.types import Prompt, Trajectory
from orchestration.reporting.stalls import EngineFacts
from orchestration.supervision.aside import Aside, Unmeasurable
from orchestration.supervision.dispatch import Dispatcher, Request
from orchestration.supervision.fleet import Fleet
from orchestration.supervision.waiting import MARGIN_S, died, no_answer
from orchestration.supervision.weight_updates import RolloutEngine, WeightUpdates
from rollout.actor import RolloutActor
from rollout.engine import EngineConfig, WeightStore

# Sequences of a group end one by one, so about half of those running have ended. With twice as many as an engine can
# decode at once, its own queue is never empty while groups wait.
SEQUENCES_FACTOR = 2


class RolloutPoolLost(RunFailed):
    """Every engine is down and was restarted too often, or none can load the published weights."""


class GenerationTimeout(RunFailed, TimeoutError):
    """A group was not started or not finished in time; it can be tried again."""


class RolloutPool:
    """Rollout engines of one policy. Use it from one event loop."""

    def __init__(
        self,
        config: EngineConfig,
        banned_ids: Sequence[int],
        store: WeightStore | None,
        size: int,
        gpus: float,
        limits: Limits,
    ):
        """`size` engines with `gpus` GPUs each. `store`: where they get new weights; None where there will be none."""
        engine_class = actor_class(RolloutActor).options(num_cpus=0, num_gpus=gpus)
        self._create = lambda: engine_class.remote(config, banned_ids, store)
        self._limits = limits
        most_sequences = SEQUENCES_FACTOR * config.max_num_seqs
        names = (f"rollout engine {number}" for number in range(size))
        self._engines = [RolloutEngine(name=name, most_sequences=most_sequences) for name in names]
        self._dispatcher = Dispatcher(self._engines)
        self._fleet: Fleet[RolloutEngine] = Fleet(
            self._engines, limits, lambda: self._create(), self._load, self._changed, RolloutPoolLost
        )
        self._updates = WeightUpdates(self._fleet, self._start_waiting)
        self._aside: Aside | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._running: dict[asyncio.Task[Any] | None, Request] = {}  # by the task that asked
        self._last_start = 0.0  # when a request last started, by the event loop's clock

    @property
    def size(self) -> int:
        return len(self._engines)

    @property
    def restarts(self) -> int:
        return self._fleet.restarts

    @property
    def published(self) -> int:
        """The version of the newest published weights."""
        return self._updates.published

    @property
    def refused_updates(self) -> int:
        """How often an engine could not fetch or verify a weight set, and kept the weights that it had."""
        return self._updates.refused

    @property
    def update_s(self) -> float:
        """Seconds that the slowest engine took to load the weights of the publication before the last one."""
        return self._updates.slowest_s

    @property
    def unloadable(self) -> str | None:
        """Why no engine can load the published weights, if each has refused them repeatedly."""
        return self._updates.unloadable

    def take_begun(self) -> list[int]:
        """Groups begun since the last call, per engine that is not set aside."""
        return self._dispatcher.take_begun()

    @property
    def queue(self) -> int:
        """Groups that wait for an engine."""
        return len(self._dispatcher.queue)

    def take_done(self) -> list[tuple[float, int]]:
        """For each engine, (seconds, tokens) of the groups and evaluated completions that ended since the last call,
        summed: of a group that ran beside another, its own seconds count as well."""
        done = [(engine.busy_s, engine.drawn) for engine in self._engines]
        for engine in self._engines:
            engine.busy_s, engine.drawn = 0.0, 0
        return done

    def engine_facts(self) -> list[EngineFacts]:
        """What each engine does."""
        return [
            EngineFacts(
                engine.name,
                engine.version,
                engine.groups,
                loads=self.published if engine.holds is None and engine.version != self.published else None,
                restarts=not engine.running,
                since=engine.since,
                evaluates=engine.holds,
            )
            for engine in self._engines
        ]

    def running(self, task: asyncio.Task[Any] | None) -> tuple[float, str] | None:
        """(since when, on which engine) what `task` asked for is generated; None if it waits for an engine."""
        request = self._running.get(task)
        engine: Any = request.engine if request else None
        return None if request is None else (request.began, engine.name)

    async def start(self) -> None:
        await self._fleet.start()

    def stop(self) -> None:
        """End the engines and what the pool does in the background."""
        self._updates.stop()
        self._fleet.stop()

    async def generate(
        self,
        may_start: Callable[[int], bool],
        prompt: Prompt,
        frames: ray.ObjectRef,
        n: int,
        temperature: float,
        max_tokens: int,
        seed: int,
        order: tuple[int, ...] | None = None,
    ) -> tuple[tuple[Trajectory, ...], int]:
        """Return `n` trajectories, and the oldest version that drew any of their tokens or computed any of their KV.

        Waits for an engine whose version `may_start` accepts. `order`: the frame shown at each frame's place; None
        keeps the order. Raises whatever the generation raises (an engine that died is replaced in the background),
        GenerationTimeout, and RolloutPoolLost.
        """
        return await self._generate(
            self._dispatcher, may_start, prompt, frames, n, temperature, max_tokens, seed, order
        )

    def set_aside(self) -> Aside:
        """Take one engine out of training, with the published version, until `give_back` or until it cannot be spared
        any more. Raises Unmeasurable if none can be spared, or if a single engine does not hold the version."""
        version = self.published
        usable = [engine for engine in self._engines if engine.running and engine.live]
        if not usable or len(usable) == 1 < self.size:
            raise Unmeasurable("only one rollout engine runs, and training needs it" if usable else "no engine runs")
        engine = min(usable, key=lambda engine: (engine.version != version, engine.groups))
        if self.size == 1 and engine.version != version:
            raise Unmeasurable(f"{engine.name} holds weights {engine.version}, and could not load {version}")
        engine.holds = version
        self._dispatcher.engines = [other for other in self._engines if other is not engine]
        self._aside = Aside(engine, version, self._generate, self._give_back)
        return self._aside

    def _give_back(self) -> None:
        """Return the engine that is set aside to training, once it holds the published version."""
        if self._aside is None:
            return
        engine, self._aside = self._aside.engine, None
        engine.begun, engine.seconds = 0, None  # those of single completions
        self._updates.catch_up(engine)
        self._dispatcher.engines = self._engines
        self._start_waiting()

    def _review_aside(self, published: int) -> None:
        """Give an engine back that can no longer measure its version, or without which training has no engine."""
        aside = self._aside
        if aside is None:
            return
        engine = aside.engine
        if aside.version != published and not (engine.running and engine.version == aside.version):
            how = "holds other weights" if engine.running else "died"
            aside.lost(f"{engine.name} {how}, and weights {aside.version} are gone")
        elif self.size > 1 and not any(other.running for other in self._engines if other is not engine):
            aside.lost("no other rollout engine runs, and training needs this one")

    async def _generate(
        self,
        dispatcher: Dispatcher,
        may_start: Callable[[int], bool],
        prompt: Prompt,
        frames: ray.ObjectRef,
        n: int,
        temperature: float,
        max_tokens: int,
        seed: int,
        order: tuple[int, ...] | None = None,
    ) -> tuple[tuple[Trajectory, ...], int]:
        """As `generate`, on an engine of `dispatcher`."""
        request = await self._started(dispatcher, may_start, n, len(prompt.token_ids) + n * max_tokens)
        engine: Any = request.engine
        self._running[asyncio.current_task()] = request
        actor, timeout_s = engine.supervised.actor, self._limits.generation_s
        try:
            # The actor enforces this timeout itself; the margin covers an actor that no longer can.
            reply = actor.generate.remote(prompt, frames, n, temperature, max_tokens, seed, timeout_s, order)
            async with asyncio.timeout(timeout_s + MARGIN_S):
                result = await reply
            dispatcher.finished(request, sum(len(trajectory.token_ids) for trajectory in result[0]))
            return result
        except TimeoutError as error:
            reason = no_answer(engine.name, "generating a group", timeout_s, "generation_s")
            hangs = not isinstance(error, ray.exceptions.RayTaskError)  # or the actor's own timeout had ended it
            if hangs:
                self._fleet.replace(engine, actor, reason)
            raise GenerationTimeout(reason) from None
        except ray.exceptions.RayActorError:
            self._fleet.replace(engine, actor, died(engine.name, "generating a group"))
            raise
        except asyncio.CancelledError:
            self._abandon(reply)
            raise
        finally:
            del self._running[asyncio.current_task()]
            dispatcher.remove(request)
            self._start_waiting()  # its engine may be the one that is set aside

    @staticmethod
    def _abandon(reply: ray.ObjectRef) -> None:
        """Cancel a call of an engine, which then drops its requests. Ray itself leaves the call of a caller that was
        cancelled running."""
        if ray.is_initialized():  # after a shutdown, Ray would join whatever cluster it finds
            ray.cancel(reply)

    async def _started(
        self, dispatcher: Dispatcher, may_start: Callable[[int], bool], sequences: int, tokens: int
    ) -> Request:
        """A request that has started on its engine. Raises RolloutPoolLost, and GenerationTimeout if for `stall_s` no
        request of the pool has started: a long queue that moves is no reason to give up."""
        self._fleet.raise_if_lost()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def started() -> None:
            self._last_start = loop.time()
            if not future.done():  # cancelled, and about to be removed
                future.set_result(None)

        request = Request(may_start, sequences, tokens, started)
        self._waiting.add(future)
        dispatcher.add(request)
        stall_s, asked = self._limits.stall_s, loop.time()
        try:
            while not future.done():
                left = max(asked, self._last_start) + stall_s - loop.time()
                if left <= 0:
                    raise GenerationTimeout(
                        f"no rollout engine could start a group within {stall_s:g} s (limits.stall_s)"
                    )
                await asyncio.wait([future], timeout=left)
            future.result()
            return request
        except BaseException:
            dispatcher.remove(request)
            raise
        finally:
            self._waiting.discard(future)

    def update(self, version: int) -> None:
        """Bring every engine that is not set aside to the published weights `version`, in flight and in the
        background."""
        self._review_aside(version)
        self._updates.publish(version)

    async def settled(self) -> None:
        """Wait until no engine still loads weights, except for those that catch up. Raises RolloutPoolLost."""
        await self._updates.settled()
        self._fleet.raise_if_lost()

    async def _load(self, engine: RolloutEngine, actor: Any) -> None:
        """Wait until a new actor has loaded the model folder."""
        engine.most_tokens = await actor.start.remote()

    def _changed(self, engine: RolloutEngine) -> None:
        """An engine went down, came up or was lost: its groups have failed already; start or fail what waits."""
        self._updates.changed(engine)
        self._review_aside(self.published)
        if (lost := self._fleet.lost) is not None:
            for future in self._waiting:
                if not future.done():
                    future.set_exception(lost)
        self._start_waiting()

    def _start_waiting(self) -> None:
        self._dispatcher.start_waiting()
        if self._aside is not None:
            self._aside.dispatcher.start_waiting()
