"""A discrete-event simulation of the training loop: what waits for what, from the seconds that each stage takes.

Guarantees: groups are admitted, started and released by the loop's own `Admission`, and shared over the engines by the
pool's own `Dispatcher`; the same arguments give the same result. Engines decode all their sequences together, one token
of each in a step. With `cores`, as many processes as are busy share the cores, each of them at most one; stages then
take CPU seconds. Pure.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

from learner.settings import PackingConfig
from orchestration.loop.admission import Admission
from orchestration.pacing import Pacing
from orchestration.planning.workload import Workload
from orchestration.supervision.dispatch import Dispatcher, EngineLoad, Request

SEQUENCES_FACTOR = 2  # as in rollout_pool: an engine takes twice the sequences that it decodes at once
WARM_UP = 0.1  # share of the steps that fill the slots and are not counted


@dataclass(frozen=True)
class Parts:
    """The processes of a run. sequences: that an engine decodes at once. kv_tokens: for which it has room, None where
    unknown. decoders: of video files. cores: shared by all of them."""

    ranks: int
    engines: int
    referees: int
    sequences: int
    kv_tokens: int | None = None
    decoders: int = 2
    cores: float = math.inf


@dataclass(frozen=True)
class Seconds:
    """What the stages take.

    frames: of one group, by one decoder. prefill: of one group's prompt. decode, decode_sequence: of one decode step,
    alone and for each sequence in it. referee: of the claims of a group, by one referee. step: of an optimizer step
    without tokens; token: of each token trained, by all ranks together. publish: of collecting a version. load: of a
    version, during which the engine does not decode.
    """

    frames: float
    prefill: float
    decode: float
    decode_sequence: float
    referee: float
    step: float
    token: float
    publish: float
    load: float


@dataclass
class Outcome:
    """step_s: mean seconds of a step. staleness_mean: mean age of trained groups, versions. idle: share of the time in
    which the processes of a kind have nothing to do, by `kind: what they wait for`."""

    step_s: float
    staleness_mean: float
    idle: dict[str, float]


@dataclass(eq=False)
class _Group:
    number: int
    lengths: list[int]
    left: int = 0
    stage: str = "frames"
    oldest: int = 0


@dataclass(eq=False)
class _Engine(EngineLoad):
    """progress: tokens decoded so far by a sequence that was always running. free_at: when its prefills and loads end.
    running: (progress at which it ends, order, its group). change: counts changes, which make scheduled ends void."""

    progress: float = 0.0
    free_at: float = 0.0
    running: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    waiting: deque[tuple[int, Callable[[], None]]] = field(default_factory=deque)
    change: int = 0
    wanted: int = 0
    loading: bool = False


class _Loop:
    """The state of one simulated run. `work` is the clock of busy processes; `now` the wall's, which goes faster or
    slower as more or fewer of them share the cores."""

    def __init__(
        self, pacing: Pacing, parts: Parts, seconds: Seconds, workload: Workload, packing: PackingConfig, seed: int
    ):
        self.parts, self.seconds, self.workload, self.packing = parts, seconds, workload, packing
        self.admission, self.rng = Admission(pacing), Random(seed)
        most = SEQUENCES_FACTOR * parts.sequences
        self.engines = [_Engine(most_sequences=most, most_tokens=parts.kv_tokens) for _ in range(parts.engines)]
        self.dispatcher = Dispatcher(self.engines, clock=lambda: self.now)
        self.now = self.work = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = self.begun = 0
        self.groups: dict[int, _Group] = {}
        self.decoding = 0  # groups whose frames are decoded or were
        self.decoded: set[int] = set()
        self.decoders_free = [0.0] * parts.decoders
        self.referees_free = [0.0] * parts.referees
        self.training = False
        self.ages: list[int] = []
        self.ends: list[float] = []
        self.idle: defaultdict[str, float] = defaultdict(float)

    def run(self, steps: int) -> Outcome:
        first = max(1, round(WARM_UP * steps))
        self._begin_groups()
        while len(self.ends) < first:
            self._advance()
        began, trained = self.ends[-1], len(self.ages)
        self.idle.clear()
        while len(self.ends) < steps:
            self._advance()
        elapsed = self.now - began
        idle = {name: share / elapsed for name, share in sorted(self.idle.items())}
        ages = self.ages[trained:]
        return Outcome(elapsed / (steps - first), sum(ages) / len(ages), idle)

    # Clocks

    def _after(self, seconds: float, then: Callable[[], None]) -> None:
        self._at(self.work + seconds, then)

    def _at(self, work: float, then: Callable[[], None]) -> None:
        self.order += 1
        heapq.heappush(self.events, (work, self.order, then))

    def _advance(self) -> None:
        work, _, then = heapq.heappop(self.events)
        passed = work - self.work
        if self.parts.cores < math.inf:
            passed *= max(1.0, self._busy() / self.parts.cores)
        if passed:
            self._count_idle(passed)
        self.now, self.work = self.now + passed, work
        then()

    def _busy(self) -> int:
        """Processes that work now."""
        engines = sum(bool(e.running) or e.free_at > self.work for e in self.engines)
        servers = sum(free > self.work for free in (*self.decoders_free, *self.referees_free))
        return engines + servers + (self.parts.ranks if self.training else 0)

    def _count_idle(self, passed: float) -> None:
        if not self.training:
            anchor = self.admission.anchor
            self.idle[f"learner: {'groups' if anchor is None else self.groups[anchor].stage}"] += passed
        idle_engines = [e for e in self.engines if not e.running and e.free_at <= self.work]
        if idle_engines:
            startable, queue = self.admission.oldest_startable, self.dispatcher.queue
            lagging = sum(engine.version < startable for engine in idle_engines) if queue else 0
            each = passed / len(self.engines)
            self.idle["engine: weights"] += each * lagging
            self.idle["engine: groups in training or waiting for it"] += each * (len(idle_engines) - lagging)
        idle = sum(free <= self.work for free in self.referees_free)
        self.idle["referee: completions"] += passed * idle / max(1, len(self.referees_free))

    # Groups

    def _begin_groups(self) -> None:
        while self.admission.free:
            number, self.begun = self.begun, self.begun + 1
            group = _Group(number, [self.workload.lengths(self.rng) for _ in range(self.workload.completions)])
            self.groups[number] = group
            self.admission.admit(number)
            if number in self.decoded:
                self._ask(group)
        # As the loop does, a step's groups ahead.
        while self.decoding < self.begun + self.admission.pacing.groups_per_step:
            self._serve(self.decoders_free, self.seconds.frames, partial(self._frames_ready, self.decoding))
            self.decoding += 1

    def _frames_ready(self, number: int) -> None:
        self.decoded.add(number)
        if number in self.groups:
            self._ask(self.groups[number])

    def _serve(self, free: list[float], seconds: float, then: Callable[[], None]) -> None:
        """The server that is free first works for `seconds`."""
        server = min(range(len(free)), key=lambda n: free[n])
        free[server] = max(free[server], self.work) + seconds
        self._at(free[server], then)

    def _ask(self, group: _Group) -> None:
        group.stage = "engine"
        sequences = self.workload.completions
        longest = self.workload.prompt + sequences * self.workload.longest
        request = Request(self.admission.may_start, sequences, longest, lambda: None)
        request.started = lambda: self._generate(group, request)
        self.dispatcher.add(request)

    def _generate(self, group: _Group, request: Request) -> None:
        engine = request.engine
        assert isinstance(engine, _Engine)
        group.stage, group.oldest, group.left = "completions", engine.version, len(group.lengths)
        self._block(engine, self.seconds.prefill)

        def ended() -> None:
            group.left -= 1
            if not group.left:
                self.dispatcher.finished(request)
                self.dispatcher.remove(request)
                self._judge(group)

        engine.waiting.extend((length, ended) for length in group.lengths)
        self._fill(engine)

    def _judge(self, group: _Group) -> None:
        group.stage = "referee"
        if self.referees_free:
            self._serve(self.referees_free, self.seconds.referee, lambda: self._ready(group))
        else:
            self._ready(group)

    def _ready(self, group: _Group) -> None:
        group.stage = "ready"
        self.admission.ready(group.number, group.oldest)
        self._train()

    # Engines

    def _progress(self, engine: _Engine) -> None:
        """Decode up to now."""
        if self.work > engine.free_at:
            if engine.running:
                engine.progress += (self.work - engine.free_at) / self._step_s(engine)
            engine.free_at = self.work

    def _step_s(self, engine: _Engine) -> float:
        return self.seconds.decode + self.seconds.decode_sequence * len(engine.running)

    def _block(self, engine: _Engine, seconds: float) -> None:
        self._progress(engine)
        engine.free_at += seconds
        self._schedule(engine)

    def _fill(self, engine: _Engine) -> None:
        self._progress(engine)
        while engine.waiting and len(engine.running) < self.parts.sequences:
            length, ended = engine.waiting.popleft()
            self.order += 1
            heapq.heappush(engine.running, (engine.progress + length, self.order, ended))
        self._schedule(engine)

    def _schedule(self, engine: _Engine) -> None:
        engine.change += 1
        if engine.running:
            left = max(0.0, engine.running[0][0] - engine.progress)
            change = engine.change
            self._at(engine.free_at + left * self._step_s(engine), lambda: self._sequence_ends(engine, change))
        elif engine.free_at > self.work:
            self._at(engine.free_at, lambda: None)  # so that its idle time is counted from then

    def _sequence_ends(self, engine: _Engine, change: int) -> None:
        if change != engine.change:
            return
        self._progress(engine)
        end, _, ended = heapq.heappop(engine.running)
        engine.progress = max(engine.progress, end)
        ended()
        self._fill(engine)

    def _update(self, engine: _Engine, version: int) -> None:
        engine.wanted = version
        if engine.loading:
            return
        engine.loading = True
        self._block(engine, self.seconds.load)
        self._at(engine.free_at, lambda: self._loaded(engine, version))

    def _loaded(self, engine: _Engine, version: int) -> None:
        engine.version, engine.loading = version, False
        if engine.wanted > version:
            self._update(engine, engine.wanted)
        self.dispatcher.start_waiting()

    # The learner

    def _train(self) -> None:
        if self.training:
            return
        batch = self.admission.take_batch()
        if batch is None:
            return
        self.training = True
        self.ages += batch.ages
        groups = [self.groups.pop(number) for number in batch.groups]
        tokens = sum(self.workload.trained_tokens(self.packing, group.lengths) for group in groups)
        self._after(self.seconds.step + self.seconds.token * tokens, self._step_ended)

    def _step_ended(self) -> None:
        version = self.admission.step_ended()
        self._begin_groups()
        if not self.admission.publish_due:
            return self._next()
        self._after(self.seconds.publish, lambda: self._published(version))

    def _published(self, version: int) -> None:
        for engine in self.engines:
            self._update(engine, version)
        self._next()

    def _next(self) -> None:
        self.ends.append(self.now)
        self.training = False
        self._train()


def simulate(
    pacing: Pacing,
    parts: Parts,
    seconds: Seconds,
    workload: Workload,
    packing: PackingConfig,
    steps: int = 200,
    seed: int = 0,
) -> Outcome:
    """A run of `steps` optimizer steps over groups of `workload`."""
    return _Loop(pacing, parts, seconds, workload, packing, seed).run(steps)
