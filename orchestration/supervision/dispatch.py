"""Which rollout engine starts which group.

Guarantees:
- requests start in the order in which they came;
- groups are shared over all live engines, those that still load weights included: no engine takes more than its share
  of the groups waiting and running, so the first engine to finish an update does not take all of them; the share of an
  engine whose groups take longer than usual is smaller;
- an engine whose update is overdue does not hold its share back: the other engines take it;
- an engine is never given more than it can run at once, unless it is idle: its sequences and, where the size of its KV
  cache is known, the most tokens that they can come to occupy.

A group that waits is bound to no engine, so an engine that dies delays only the groups that it runs. Pure: the pool
reports what happens to the engines, and `start_waiting` calls back each request that starts.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

# An update is overdue after this many times the median of the publication before: all engines load the same bytes.
OVERDUE_FACTOR = 2.0
# An engine is slow if its groups take this many times the median: their lengths alone vary by less on average.
SLOW_FACTOR = 1.25
# Weight of the newest group in the smoothed time: about the last ten count.
SMOOTHING = 0.2


@dataclass(eq=False)
class EngineLoad:
    """What one engine holds and runs.

    version: its weight version. live: False while it is restarted. overdue: its update takes much longer than was usual
    for the publication before. groups, sequences, tokens: running now; tokens count prompts and the longest possible
    completions. most_sequences, most_tokens: what it can run at once; None where unknown. begun: groups begun since
    `take_begun`. seconds: the smoothed time that a group takes; None before the first. busy_s, drawn: the times and the
    tokens of the groups that ended since `take_done`, summed.
    """

    version: int = 0
    live: bool = True
    overdue: bool = False
    groups: int = 0
    sequences: int = 0
    tokens: int = 0
    most_sequences: int | None = None
    most_tokens: int | None = None
    begun: int = 0
    seconds: float | None = None
    busy_s: float = 0.0
    drawn: int = 0

    def took(self, seconds: float, tokens: int) -> None:
        """Record the time that a group took, and its tokens."""
        self.busy_s += seconds
        self.drawn += tokens
        self.seconds = seconds if self.seconds is None else self.seconds + SMOOTHING * (seconds - self.seconds)

    def has_room(self, request: Request) -> bool:
        """Whether the request can run beside what runs already. An idle engine takes any request."""
        return self.groups == 0 or (
            _fits(self.sequences + request.sequences, self.most_sequences)
            and _fits(self.tokens + request.tokens, self.most_tokens)
        )


@dataclass(eq=False)
class Request:
    """A group that waits for an engine.

    may_start: whether an engine of this version may start it. tokens: the most it can come to occupy in a KV cache.
    started: called when the request starts; `engine` is set then.
    """

    may_start: Callable[[int], bool]
    sequences: int
    tokens: int
    started: Callable[[], object]
    engine: EngineLoad | None = None
    began: float = 0.0


@dataclass
class Dispatcher:
    """The engines of a pool and the queue of requests. clock: the time in seconds."""

    engines: Sequence[EngineLoad] = ()
    queue: deque[Request] = field(default_factory=deque)
    clock: Callable[[], float] = time.monotonic

    def add(self, request: Request) -> None:
        self.queue.append(request)
        self.start_waiting()

    def start_waiting(self) -> None:
        """Start every request that an engine can start now, first come, first served."""
        usual = self._usual_seconds()
        while self.queue and (engine := self._choose(self.queue[0], usual)) is not None:
            request = self.queue.popleft()
            request.engine, request.began = engine, self.clock()
            engine.groups += 1
            engine.sequences += request.sequences
            engine.tokens += request.tokens
            engine.begun += 1
            request.started()

    def remove(self, request: Request) -> None:
        """Remove a request that has ended or is no longer wanted, and start what waits for its place."""
        engine = request.engine
        if engine is None:
            self.queue.remove(request)
        else:
            engine.groups -= 1
            engine.sequences -= request.sequences
            engine.tokens -= request.tokens
        self.start_waiting()

    def finished(self, request: Request, tokens: int = 0) -> None:
        """Record how long a request took that ended well, and the tokens drawn for it. `remove` follows."""
        if request.engine is not None:
            request.engine.took(self.clock() - request.began, tokens)

    def take_begun(self) -> list[int]:
        """Groups begun per engine since the last call."""
        begun = [engine.begun for engine in self.engines]
        for engine in self.engines:
            engine.begun = 0
        return begun

    def _choose(self, request: Request, usual: float | None) -> EngineLoad | None:
        """The engine that can start the request and is least busy for its speed, or None."""
        startable = [e for e in self.engines if e.live and request.may_start(e.version)]
        awaited = sum(e.live and not e.overdue and not request.may_start(e.version) for e in self.engines)
        if not startable:
            return None
        unfinished = len(self.queue) + sum(e.groups for e in self.engines if e.live)
        share = math.ceil(unfinished / (len(startable) + awaited))
        open_engines = [e for e in startable if e.groups < max(1.0, share * _speed(e, usual)) and e.has_room(request)]
        return min(open_engines, key=lambda e: e.groups / _speed(e, usual), default=None)

    def _usual_seconds(self) -> float | None:
        """The lower median of what a group takes on the engines, None if it is unknown."""
        known = sorted(e.seconds for e in self.engines if e.live and e.seconds is not None)
        return known[(len(known) - 1) // 2] if known else None


def _speed(engine: EngineLoad, usual: float | None) -> float:
    """The speed of an engine that is slower than usual as a share of the usual one, else 1."""
    if usual is None or engine.seconds is None or engine.seconds <= SLOW_FACTOR * usual:
        return 1.0
    return usual / engine.seconds


def _fits(amount: int, most: int | None) -> bool:
    return most is None or amount <= most
