"""The referee as a service: verdicts on claims and judgements on answers, from any backend (promise 8).

Guarantees: concurrent requests for the same question share one request to the backend, and cached questions are not
asked again. Every call returns within `deadline_s`, with None for missing answers, never a made-up verdict. A question
is asked at most `attempts` times. A backend that keeps failing is not asked for a while; its questions are answered
None at once. A backend that rejects every request ends the run. Each None is counted. A defect, as opposed to a
failure of the backend, raises. Pure asyncio: independent of Ray, torch and vLLM.
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
    shown_size,
)

# Between attempts: doubled each time, with up to a second of jitter, so that simultaneous failures do not retry at the
# same time.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0
COUNTS = ("questions", "cached", "deduplicated", "asked", "retried", "late", "failed", "breaker_open", "missing")


@dataclass(frozen=True)
class ServiceConfig:
    """Limits on asking a referee.

    deadline_s: time after which a verdict counts as missing.
    attempts: maximum attempts per question.
    breaker_failures: consecutive failures that open the circuit breaker.
    breaker_pause_s: while the breaker is open, one question is asked in each such interval.
    cache_entries: answers kept in memory.
    cache_dir: a folder that keeps answers across runs; empty for none.
    max_concurrent: concurrent requests to one endpoint.
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
    """The referee's key, model or address must be corrected by the user: waiting would not help."""


@dataclass(frozen=True)
class _Question:
    """A turn, a function that makes its images if it is really asked, and the size of the scale."""

    turn: Turn
    images: Callable[[], list[np.ndarray]]
    scale: int


@dataclass
class _Request:
    """A question being asked of the backend, and the number of calls that wait for its answer."""

    task: asyncio.Task[Answer | None]
    waiting: int = 0


class RefereeService:
    """One backend with cache, retries, deadlines and circuit breaker. Must be used from one event loop."""

    def __init__(
        self,
        backend: Backend,
        verification: VerificationConfig,
        config: ServiceConfig,
        temperature: Mapping[str, float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ):
        """`temperature`: by kind of question, 1 if missing. Raises BadInput if `cache_dir` cannot be used."""
        self.backend, self.verification, self.config = backend, verification, config
        self.temperature = temperature or {}
        self.breaker = Breaker(config.breaker_failures, config.breaker_pause_s)
        self.cache = VerdictCache(config.cache_entries, DiskCache(config.cache_dir) if config.cache_dir else None)
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
        self._sleep = sleep
        self._requests: dict[VerdictKey, _Request] = {}

    async def start(self) -> None:
        """Start the backend and ask it about a grey image. Raises BadInput if it does not answer."""
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
        """One verdict per claim, in order; None for those missing at the deadline. `frames`: uint8 [n, H, W, 3].

        Each claim must have a time, and a box with at least one pixel inside the frame; it is judged on the shown frame
        nearest to its time. All questions are asked concurrently, so the full deadline applies to each claim.
        """

        def verdict(answers: dict[str, Answer]) -> Verdict:
            relevance, localization = (self._read(kind, answers[kind]) for kind in KINDS)
            return Verdict(relevance, localization)

        answered = await self.probabilities(question, claims, info, frames)
        return [None if answers is None else verdict(answers) for answers in answered]

    async def probabilities(
        self, question: str, claims: list[Claim], info: FrameInfo, frames: np.ndarray
    ) -> list[dict[str, Answer] | None]:
        """Like `verify`, before reading and temperature: per claim, kind -> probabilities of 0, 1 and 2."""
        questions = [self._about_claim(question, claim, info, frames) for claim in claims]
        answers = await self._answers(keyed for both in questions for keyed in both)
        distributions: list[dict[str, Answer] | None] = []
        for both in questions:
            by_kind = {kind: answer for kind, (key, _) in zip(KINDS, both) if (answer := answers[key]) is not None}
            distributions.append(by_kind if len(by_kind) == len(KINDS) else None)
        self.counts["missing"] += distributions.count(None)
        return distributions

    async def judge(self, question: str, reference: str, answer: str) -> float | None:
        """Agreement of `answer` with `reference`, 0 to 1; None if there is no judgement at the deadline."""
        text = judge_text(question, reference, answer, self.verification)
        key = self._key(JUDGE, [text], None)
        answers = await self._answers([(key, _Question([text], list, len(JUDGE_SCALE)))])
        judgement = answers[key]
        self.counts["missing"] += judgement is None
        return None if judgement is None else self._read(JUDGE, judgement)

    def forget(self) -> None:
        """Empty the in-memory cache, so that everything is judged anew; a cache on disk stays."""
        self.cache.forget()

    def stats(self) -> dict[str, int]:
        """Counts since the start.

        `questions`: two per claim, one per answer. Each question is `cached`, `deduplicated` (the same one is being
        asked), `asked`, or not asked because of `breaker_open`. No answer comes from the last kind, nor from questions
        that are `late` or `failed`; `missing` counts the claims and answers concerned. `retried`: attempts after the
        first. `cache_failures`: failed reads and writes of the disk cache.
        """
        disk = self.cache.disk
        return dict(self.counts) | {
            "cache_entries": len(self.cache),
            "cache_failures": disk.failures if disk else 0,
        }

    def _about_claim(
        self, question: str, claim: Claim, info: FrameInfo, frames: np.ndarray
    ) -> list[tuple[VerdictKey, _Question]]:
        """The claim's questions with their keys, in the order of KINDS."""
        if claim.box is None or claim.time is None:
            raise ValueError(f"claim at {claim.span} is not complete: {claim.reason}")
        config = self.verification
        frame, box = nearest_frame(info.times, claim.time), drawn_box(claim.box, info.size)
        pixels = (info.key, frame, box, tuple(config.crop_size), config.pad_share)
        size = shown_size(info.size, self.backend.tile)
        shown = cache(lambda: images(frames[frame], box, config, size))  # both questions share the images
        turns = {kind: parts(kind, question, claim.phrase, info.times[frame], size, config) for kind in KINDS}
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

    async def _answers(self, questions: Iterable[tuple[VerdictKey, _Question]]) -> dict[VerdictKey, Answer | None]:
        """An entry for each question, None if it has no answer at the deadline."""
        answers: dict[VerdictKey, Answer | None] = {}
        requests: dict[VerdictKey, _Request] = {}
        for key, question in questions:
            self.counts["questions"] += 1
            if key in answers or key in requests:
                self.counts["deduplicated"] += 1
            elif (answer := self.cache.get(key)) is not None:
                self.counts["cached"] += 1
                answers[key] = answer
            elif (request := self._request(key, question)) is not None:
                requests[key] = request
            else:
                answers[key] = None
        if not requests:
            return answers
        try:
            await asyncio.wait({request.task for request in requests.values()}, timeout=self.config.deadline_s)
        finally:
            late = {key for key, request in requests.items() if not request.task.done()}
            cancelled = sum([self._release(key, request) for key, request in requests.items()])
        self.counts["late"] += len(late)
        for _ in range(cancelled):
            self.breaker.failed()
        return answers | {key: None if key in late else request.task.result() for key, request in requests.items()}

    def _request(self, key: VerdictKey, question: _Question) -> _Request | None:
        """Join the request for this question, starting one if needed; None if the breaker is open."""
        request = self._requests.get(key)
        if request is not None:
            self.counts["deduplicated"] += 1
        elif self.breaker.allows():
            self.counts["asked"] += 1
            request = self._requests[key] = _Request(asyncio.create_task(self._fetch(key, question)))
            request.task.add_done_callback(lambda task: self._remove(key, task))
        else:
            self.counts["breaker_open"] += 1
            return None
        request.waiting += 1
        return request

    def _release(self, key: VerdictKey, request: _Request) -> bool:
        """Stop waiting for a request, and cancel it if no other call waits for it. Returns whether it was cancelled."""
        request.waiting -= 1
        if request.waiting or request.task.done():
            return False
        self._remove(key, request.task)
        return request.task.cancel()

    def _remove(self, key: VerdictKey, task: asyncio.Task[Answer | None]) -> None:
        if key in self._requests and self._requests[key].task is task:
            del self._requests[key]
        if task.done() and not task.cancelled():
            task.exception()  # marks it as retrieved: callers raise it, but only the first of several exceptions

    async def _fetch(self, key: VerdictKey, question: _Question) -> Answer | None:
        try:
            answer = await self._ask(question)
        except (Unavailable, Refused) as error:
            self.counts["failed"] += 1
            if isinstance(error, Barred) and not self.breaker.closed:
                raise RefereeBarred(f"the referee rejects every question: {error}") from None
            return None
        self.cache.put(key, answer)
        return answer

    async def _ask(self, question: _Question) -> Answer:
        """Ask the backend, with at most `attempts` attempts. Raises Unavailable and Refused."""
        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(self.config.attempts),
            wait=wait_exponential_jitter(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S),
            retry=retry_if_exception(lambda error: isinstance(error, Unavailable) and self.breaker.closed),
            sleep=self._sleep,
            reraise=True,
        ):
            with attempt:
                if attempt.retry_state.attempt_number > 1:
                    self._begin_retry()
                try:
                    probabilities = await self.backend.choose(question.turn, question.images(), question.scale)
                    if not np.isfinite(probabilities).all():
                        raise Unavailable("its probabilities are not finite")
                except (Unavailable, Barred):
                    self.breaker.failed()
                    raise
        self.breaker.succeeded()
        return tuple(probabilities.tolist())

    def _begin_retry(self) -> None:
        """Count a retry. Raises Unavailable if the failures of other questions have opened the breaker meanwhile."""
        if not self.breaker.closed:
            raise Unavailable("it keeps failing and is not asked for a while")
        self.counts["retried"] += 1
