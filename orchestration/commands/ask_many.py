"""Asking referees about many claims of a dataset, with a progress bar; shared by calibration and attacks.

Guarantee: clips that cannot be read and claims without a verdict are counted separately, and no verdict is made up.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import Progress

from evidence.errors import BadInput, UnreadableMedia
from evidence.types import Claim, FrameInfo, Sample
from orchestration.supervision.standalone_referee import SAMPLES_AT_ONCE, StandaloneReferee

T = TypeVar("T")


@dataclass(frozen=True)
class ReadableSample:
    """A sample whose frames can be read."""

    sample: Sample
    info: FrameInfo


def phrases_of(samples: Sequence[Sample]) -> list[str]:
    """The distinct object phrases of the samples' labels, sorted."""
    return sorted({phrase for sample in samples for items in sample.key_items.values() for phrase in items})


async def readable(
    standalone: StandaloneReferee, samples: Sequence[Sample], counts: Counter[str]
) -> list[ReadableSample]:
    """The samples that can be read; the others are added to counts["unreadable"]. Raises BadInput if none can."""

    async def decoded(sample: Sample) -> ReadableSample | None:
        try:
            with await standalone.lease(sample) as lease:
                return ReadableSample(sample, lease.info)
        except UnreadableMedia:
            counts["unreadable"] += 1
            return None

    clips = [clip for clip in await with_progress("decoding", [decoded(s) for s in samples]) if clip is not None]
    if not clips:
        raise BadInput(f"none of the {len(samples)} clips can be read; `ser data check --media` gives the reasons")
    return clips


async def ask_many(
    standalone: StandaloneReferee,
    clips: Sequence[ReadableSample],
    claims: Sequence[tuple[int, Claim]],
    method: Callable[..., Awaitable[list[T]]],
) -> list[tuple[T, ...]]:
    """For each claim, in order, the answers of all referees.

    claims: (index of the clip, claim). method: `verify` or `probabilities` of `standalone`.
    """
    places_of_clip: dict[int, list[int]] = {}
    for place, (clip, _) in enumerate(claims):
        places_of_clip.setdefault(clip, []).append(place)
    answers: list[tuple[T, ...]] = [()] * len(claims)

    async def ask(clip: int, places: list[int]) -> None:
        sample = clips[clip].sample
        with await standalone.lease(sample) as lease:
            clip_claims = [claims[place][1] for place in places]
            for referee in range(len(standalone.pools)):
                replies = await method(sample, clip_claims, lease, referee)
                for place, reply in zip(places, replies, strict=True):
                    answers[place] += (reply,)

    await with_progress("judging", [ask(clip, places) for clip, places in places_of_clip.items()])
    return answers


async def with_progress(description: str, work: Sequence[Any]) -> list[Any]:
    """The results of coroutines, in order. At most SAMPLES_AT_ONCE run at a time. If one fails, the others are
    cancelled and its error alone is raised."""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(description, total=len(work))
        return await all_of(work, SAMPLES_AT_ONCE, lambda result: progress.advance(bar))


async def all_of(work: Sequence[Any], at_once: int, ended: Callable[[Any], object]) -> list[Any]:
    """The results of coroutines, in order. At most `at_once` run at a time, and `ended` is called with each result. If
    one fails, the others are cancelled and its error alone is raised."""
    gate = asyncio.Semaphore(at_once)

    async def gated(coroutine: Any) -> Any:
        async with gate:
            result = await coroutine
        ended(result)
        return result

    tasks = [asyncio.ensure_future(gated(coroutine)) for coroutine in work]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for coroutine in work:
            coroutine.close()  # those that have not begun
        raise
