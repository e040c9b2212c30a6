"""The referee as a service: verdicts on claims and judgements on answers, from whatever backend there is (promise 8).

Guarantees: the same question is asked once, however many groups ask it at a time, and never again while it is
remembered; every call returns within `deadline_s`, with None for what is not there by then, never a made-up verdict; a
question is asked at most `attempts` times; a backend that fails again and again is left alone for a while, and what
would have been asked of it is None at once; one that lets no question in any more ends the run. Each None has its
count. What is no failure of the backend but a defect raises. Pure asyncio: nothing here knows Ray, torch or vLLM.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from evidence.config_checks import require_above_zero, require_least
from evidence.errors import BadInput, RunFailed
from evidence.geometry import nearest_frame
from evidence.types import Claim, FrameInfo, Verdict
from referee.service.backend import Backend, Barred, Refused, Turn, Unavailable
from referee.service.breaker import Breaker
from referee.service.cache import Answer, DiskCache, VerdictCache, VerdictKey
from referee.verification import (
    JUDGE,
    JUDGE_SCALE,
    KINDS,
    SCALE,
    VerificationConfig,
    drawn_box,
    images,
    judge_text,
    parts,
    read_scale,
)

# Between attempts: doubled each time, with up to a second of jitter, so that those refused together return apart.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0
COUNTS = ("questions", "cached", "deduplicated", "asked", "retried", "late", "failed", "breaker_open", "missing")


@dataclass(frozen=True)
class ServiceConfig:
    """How a referee is asked.

    deadline_s: after it a verdict counts as missing. attempts: of one question. breaker_failures: so many in a row, and
    it is left alone but for one question in breaker_pause_s. cache_entries: answers kept in memory. cache_dir: a folder
    that keeps them from run to run; none if empty. max_concurrent: requests under way to one endpoint.
    """

    deadline_s: float = 60.0
    attempts: int = 3
    breaker_failures: int = 16
    breaker_pause_s: float = 15.0
    cache_entries: int = 200_000
    cache_dir: str = ""
    max_concurrent: int = 32

    def __post_init__(self) -> None:
        require_above_zero(self, "deadline_s", "breaker_pause_s")
        require_least(self, 1, "attempts", "breaker_failures", "cache_entries", "max_concurrent")


class RefereeBarred(RunFailed):
    """A person has to mend the referee's key, model or address: waiting would change nothing."""


@dataclass(frozen=True)
class _Question:
    """What is put, the images to show if it really is asked, and the size of the scale."""

    turn: Turn
    images: Callable[[], list[np.ndarray]]
    scale: int


@dataclass
class _Flight:
    """A question under way and how many calls wait for it."""

    task: asyncio.Task[Answer | None]
    waiting: int = 0


class RefereeService:
    """One backend with everything around it. To be used from one event loop."""

    def __init__(
        self,
        backend: Backend,
        verification: VerificationConfig,
        config: ServiceConfig,
        temperature: Mapping[str, float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ):
        """`temperature`: by kind of question, 1 if not given. Raises BadInput if `cache_dir` cannot be used."""
        self.backend, self.verification, self.config = backend, verification, config
        self.temperature = temperature or {}
        self.breaker = Breaker(config.breaker_failures, config.breaker_pause_s)
        self.cache = VerdictCache(config.cache_entries, DiskCache(config.cache_dir) if config.cache_dir else None)
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
        self._sleep = sleep
        self._flights: dict[VerdictKey, _Flight] = {}

    async def start(self) -> None:
        """Start the backend and ask it about a grey picture. Raises BadInput if it gives no answer."""
        await self.backend.start()
        width, height = self.verification.crop_size
        grey = np.full((height, width, 3), 127, np.uint8)
        turn: Turn = ["Answer with one digit. Does the picture show a dog? 0 no 1 partly 2 yes", (width, height)]
        try:
            await self._ask(_Question(turn, lambda: [grey], len(SCALE)))
        except (Unavailable, Refused) as error:
            raise BadInput(f"the referee does not answer: {error}") from None

    async def verify(
        self, question: str, claims: list[Claim], info: FrameInfo, frames: np.ndarray
    ) -> list[Verdict | None]:
        """One verdict per claim, in order; None for those not there by the deadline. `frames`: uint8 [n, H, W, 3].

        Claims have a box with at least a pixel inside the frame, and a time; the frame judged is the shown one nearest
        to it. Both questions of a claim, and all claims, are asked at the same time, so that the deadline is each
        claim's own.
        """
        said = await self.probabilities(question, claims, info, frames)

        def verdict(one: dict[str, Answer]) -> Verdict:
            relevance, localization = (self._read(kind, one[kind]) for kind in KINDS)
            return Verdict(relevance, localization)

        return [None if one is None else verdict(one) for one in said]

    async def probabilities(
        self, question: str, claims: list[Claim], info: FrameInfo, frames: np.ndarray
    ) -> list[dict[str, Answer] | None]:
        """As `verify`, before reading and temperature: by kind, the probabilities of 0, 1 and 2."""
        put = [self._about_claim(question, claim, info, frames) for claim in claims]
        answers = await self._answers(pair for both in put for pair in both)
        found: list[dict[str, Answer] | None] = []
        for both in put:
            said = {kind: answer for kind, (key, _) in zip(KINDS, both) if (answer := answers[key]) is not None}
            found.append(said if len(said) == len(KINDS) else None)
        self.counts["missing"] += found.count(None)
        return found

    async def judge(self, question: str, reference: str, answer: str) -> float | None:
        """How far `answer` says what `reference` says, 0 to 1; None as for a claim."""
        text = judge_text(question, reference, answer, self.verification)
        key = self._key(JUDGE, [text], None)
        answers = await self._answers([(key, _Question([text], list, len(JUDGE_SCALE)))])
        said = answers[key]
        self.counts["missing"] += said is None
        return None if said is None else self._read(JUDGE, said)

    def forget(self) -> None:
        """Empty the memory; a cache on disk stays."""
        self.cache.forget()

    def stats(self) -> dict[str, int]:
        """Since the start, in questions: two for each claim, one for each answer. Each is `cached`, `deduplicated`
        (the same one is under way), `asked` or, as `breaker_open`, not asked. Without an answer are the last and those
        that came too `late` or `failed`; `missing` are the claims and answers that they concern. `retried`: attempts
        after a first one. `cache_failures`: of the disk."""
        disk = self.cache.disk
        return dict(self.counts) | {
            "cache_entries": len(self.cache),
            "cache_failures": disk.failures if disk else 0,
        }

    def _about_claim(
        self, question: str, claim: Claim, info: FrameInfo, frames: np.ndarray
    ) -> list[tuple[VerdictKey, _Question]]:
        """Its questions, in the order of KINDS."""
        if claim.box is None or claim.time is None:
            raise ValueError(f"claim at {claim.span} is not complete: {claim.reason}")
        config = self.verification
        frame, box = nearest_frame(info.times, claim.time), drawn_box(claim.box, info.size)
        pixels = (info.key, frame, box, tuple(config.crop_size), config.pad_share)
        shown = cache(lambda: images(frames[frame], box, config))  # both questions show the same
        turns = {kind: parts(kind, question, claim.phrase, info.times[frame], info.size, config) for kind in KINDS}
        return [(self._key(kind, turn, pixels), _Question(turn, shown, len(SCALE))) for kind, turn in turns.items()]

    def _key(self, kind: str, turn: Turn, pixels: tuple | None) -> VerdictKey:
        return VerdictKey(
            referee=(self.backend.digest, self.backend.setting),
            wording=self.verification.wording.version,
            kind=kind,
            text=tuple(part for part in turn if isinstance(part, str)),
            pixels=pixels,
        )

    def _read(self, kind: str, answer: Answer) -> float:
        return read_scale(answer, self.verification.reading, self.temperature.get(kind, 1.0))

    async def _answers(self, put: Iterable[tuple[VerdictKey, _Question]]) -> dict[VerdictKey, Answer | None]:
        """An entry for each question, None where there is no answer by the deadline."""
        answers: dict[VerdictKey, Answer | None] = {}
        waiting: dict[VerdictKey, _Flight] = {}
        for key, question in put:
            self.counts["questions"] += 1
            if key in answers or key in waiting:
                self.counts["deduplicated"] += 1
            elif (answer := self.cache.get(key)) is not None:
                self.counts["cached"] += 1
                answers[key] = answer
            elif (flight := self._board(key, question)) is not None:
                waiting[key] = flight
            else:
                answers[key] = None
        if not waiting:
            return answers
        try:
            await asyncio.wait({flight.task for flight in waiting.values()}, timeout=self.config.deadline_s)
        finally:
            late = {key for key, flight in waiting.items() if not flight.task.done()}
            given_up = sum([self._leave(key, flight) for key, flight in waiting.items()])
        self.counts["late"] += len(late)
        for _ in range(given_up):
            self.breaker.failed()
        return answers | {key: None if key in late else flight.task.result() for key, flight in waiting.items()}

    def _board(self, key: VerdictKey, question: _Question) -> _Flight | None:
        """The flight of this question, begun if there is none; None if the breaker is open."""
        flight = self._flights.get(key)
        if flight is not None:
            self.counts["deduplicated"] += 1
        elif self.breaker.allows():
            self.counts["asked"] += 1
            flight = self._flights[key] = _Flight(asyncio.create_task(self._fetch(key, question)))
            flight.task.add_done_callback(lambda task: self._landed(key, task))
        else:
            self.counts["breaker_open"] += 1
            return None
        flight.waiting += 1
        return flight

    def _leave(self, key: VerdictKey, flight: _Flight) -> bool:
        """Wait no longer; what nobody waits for any more is given up. Whether it was."""
        flight.waiting -= 1
        if flight.waiting or flight.task.done():
            return False
        self._landed(key, flight.task)
        return flight.task.cancel()

    def _landed(self, key: VerdictKey, task: asyncio.Task[Answer | None]) -> None:
        if key in self._flights and self._flights[key].task is task:
            del self._flights[key]
        if task.done() and not task.cancelled():
            task.exception()  # told by whoever waits for it; of several only the first

    async def _fetch(self, key: VerdictKey, question: _Question) -> Answer | None:
        try:
            answer = await self._ask(question)
        except (Unavailable, Refused) as error:
            self.counts["failed"] += 1
            if isinstance(error, Barred) and not self.breaker.closed:
                raise RefereeBarred(f"the referee lets no question in any more: {error}") from None
            return None
        self.cache.put(key, answer)
        return answer

    async def _ask(self, question: _Question) -> Answer:
        """An answer in at most `attempts`. Raises Unavailable and Refused."""
        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(self.config.attempts),
            wait=wait_exponential_jitter(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S),
            retry=retry_if_exception(lambda error: isinstance(error, Unavailable) and self.breaker.closed),
            sleep=self._sleep,
            reraise=True,
        ):
            with attempt:
                if attempt.retry_state.attempt_number > 1:
                    self._again()
                try:
                    probabilities = await self.backend.choose(question.turn, question.images(), question.scale)
                except (Unavailable, Barred):
                    self.breaker.failed()
                    raise
        self.breaker.succeeded()
        return tuple(probabilities.tolist())

    def _again(self) -> None:
        """Before another attempt. Raises Unavailable if others failed meanwhile and opened the breaker."""
        if not self.breaker.closed:
            raise Unavailable("it is left alone for a while")
        self.counts["retried"] += 1
