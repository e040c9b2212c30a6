"""The supervision that rollout engines and referees share: starts, heartbeats, restarts, and the loss of all of them.

Guarantees: an actor that dies, cannot be started or falls silent is replaced, as often as `limits.restarts_per_hour`
allows and independently of the others; one whose hour has no room stays down, with one warning, until it has; only when
every actor of a fleet is down like that is the fleet lost. A failure at the first start of the fleet is fatal.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import ray

from evidence.errors import RunFailed
from evidence.limits import Limits
from evidence.supervision import Lifecycle, Restarts, StartFailed, Supervised
from orchestration.reporting.display import clock
from orchestration.supervision.waiting import died, first_line, no_answer

# Seconds between two pings of an actor, unless `limits.heartbeat_s` is short.
PING_S = 5.0

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Member:
    """An actor of a fleet and its replacements.

    name: in messages. busy: calls under way that may keep the actor from answering a ping; they have limits of their
    own. free_since: when the last of them ended, by the event loop's clock.
    """

    name: str = ""
    busy: int = 0
    free_since: float = 0.0
    supervised: Supervised[Any] = field(init=False)

    @property
    def running(self) -> bool:
        return self.supervised.running


M = TypeVar("M", bound=Member)


class Fleet(Generic[M]):
    """The members of a pool. Use it from one event loop.

    create: makes an actor. load: waits until a new actor can be used; it must return within `limits.start_s`. changed:
    called with a member whenever it has gone down, come up or was lost. lost: what ended the fleet, if anything has.
    """

    def __init__(
        self,
        members: list[M],
        limits: Limits,
        create: Callable[[], Any],
        load: Callable[[M, Any], Awaitable[object]],
        changed: Callable[[M], object],
        lost: type[RunFailed],
    ):
        self.members, self.limits = members, limits
        self.lost: RunFailed | None = None
        self._create, self._load, self._changed, self._lost_type = create, load, changed, lost
        self._heartbeats: list[asyncio.Task[None]] = []
        self._change = asyncio.Event()

    @property
    def restarts(self) -> int:
        return sum(member.supervised.restarts.total for member in self.members)

    async def start(self) -> None:
        """Start all members at once. Raises the fleet's own error, and what an actor itself raised."""
        for member in self.members:
            restarts = Restarts(self.limits.restarts_per_hour)
            note = partial(self._note, member)
            member.supervised = Supervised(self._create(), self._lifecycle(member), restarts, note)
        await asyncio.gather(*map(self._first_start, self.members))
        self._heartbeats = [asyncio.create_task(self._watch(member)) for member in self.members]

    def stop(self) -> None:
        """End the heartbeats and kill the actors."""
        for heartbeat in self._heartbeats:
            heartbeat.cancel()
        for member in self.members:
            member.supervised.stop()

    def replace(self, member: M, actor: Any, reason: str) -> None:
        """Replace `actor` in the background, unless that was done already. reason: one line that names the member."""
        if member.supervised.replace(actor, reason):
            log.warning("%s; it is restarted", reason)
            self._note(member)

    def raise_if_lost(self) -> None:
        if self.lost is not None:
            raise self.lost

    async def any_running(self) -> None:
        """Wait until a member runs. Raises the fleet's own error, also after `limits.stall_s`."""
        stall_s = self.limits.stall_s
        try:
            async with asyncio.timeout(stall_s):
                while not any(member.running for member in self.members):
                    self.raise_if_lost()
                    change = self._change
                    await change.wait()
        except TimeoutError:
            names = ", ".join(member.name for member in self.members)
            raise self._lost_type(f"none could be restarted within {stall_s:g} s (limits.stall_s): {names}") from None
        self.raise_if_lost()

    def _lifecycle(self, member: M) -> Lifecycle[Any]:
        async def ready(actor: Any) -> None:
            try:
                await self._started(member, actor)
            except ray.exceptions.RayError as error:
                raise StartFailed(f"{member.name} could not be restarted: {first_line(error)}") from None

        return Lifecycle(self._create, ready, ray.kill, (StartFailed,))

    async def _first_start(self, member: M) -> None:
        try:
            await self._started(member, member.supervised.actor)
        except StartFailed as error:
            raise self._lost_type(str(error)) from None

    async def _started(self, member: M, actor: Any) -> None:
        """Wait until a new actor can be used. Raises StartFailed if it dies or hangs, and what it raises itself."""
        start_s = self.limits.start_s
        try:
            async with asyncio.timeout(start_s):
                await self._load(member, actor)
        except ray.exceptions.RayTaskError:  # which is also an instance of its cause's class
            raise
        except TimeoutError:
            raise StartFailed(no_answer(member.name, "starting", start_s, "start_s")) from None
        except ray.exceptions.RayActorError:
            raise StartFailed(died(member.name, "starting")) from None

    async def _watch(self, member: M) -> None:
        """Ping a member's actors for ever."""
        while True:
            await asyncio.sleep(min(PING_S, self.limits.heartbeat_s / 4))
            if member.running and not member.busy:
                await self.answers(member, member.supervised.actor)

    async def answers(self, member: M, actor: Any) -> bool:
        """Ping an actor. Replaces it, and returns False, if it is dead or silent for `limits.heartbeat_s`."""
        heartbeat_s = self.limits.heartbeat_s
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(heartbeat_s):
                await actor.ping.remote()
            return True
        except ray.exceptions.RayTaskError as error:  # which is also an instance of its cause's class
            reason = f"{member.name} failed: {first_line(error)}"
        except TimeoutError:
            # A ping that was held up by a call with a limit of its own says nothing.
            if member.busy or loop.time() - member.free_since < heartbeat_s:
                return True
            reason = no_answer(member.name, "running", heartbeat_s, "heartbeat_s")
        except ray.exceptions.RayActorError:
            reason = died(member.name, "running")
        except ray.exceptions.RayError as error:  # of Ray itself; the next ping tells more
            log.warning("a ping of %s failed: %s", member.name, first_line(error))
            return True
        self.replace(member, actor, reason)
        return False

    def _note(self, member: M) -> None:
        """React to a change of a member, and wake what waits for one."""
        supervised, per_hour = member.supervised, self.limits.restarts_per_hour
        often = f"restarted {per_hour} times within an hour (limits.restarts_per_hour)"
        if supervised.failure is not None:
            self.lose(member, f"{member.name}: {first_line(supervised.failure)}")
        elif supervised.spent and all(other.supervised.spent for other in self.members):
            names = ", ".join(other.name for other in self.members)
            verb = "were each" if len(self.members) > 1 else "was"
            self.lose(member, f"{names} {verb} {often}; last, {supervised.reason}")
        else:
            if supervised.spent:
                down_for = clock(supervised.restarts.blocked_s())
                log.warning("%s; it was %s and stays down for %s", supervised.reason, often, down_for)
            self._wake(member)

    def lose(self, member: M, reason: str) -> None:
        """End the fleet because of `member`. reason: one line."""
        self.lost = self._lost_type(reason)
        self._wake(member)

    def _wake(self, member: M) -> None:
        self._change.set()
        self._change = asyncio.Event()
        self._changed(member)
