"""Asking referees about many claims of a dataset, with progress: what calibration and attacks share.

Guarantee: clips that cannot be read and claims without a verdict are counted apart, and no verdict is made up.
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
    return sorted({phrase for sample in samples for items in sample.key_items.values() for phrase in items})


async def readable(
    standalone: StandaloneReferee, samples: Sequence[Sample], counts: Counter[str]
) -> list[ReadableSample]:
    """The samples that can be read; others are counted as unreadable. Raises BadInput if none can."""

    async def decoded(sample: Sample) -> ReadableSample | None:
        try:
            with await standalone.lease(sample) as lease:
                return ReadableSample(sample, lease.info)
        except UnreadableMedia:
            counts["unreadable"] += 1
            return None

    clips = [clip for clip in await with_progress("decoding", [decoded(s) for s in samples]) if clip is not None]
    if not clips:
        raise BadInput(f"none of the {len(samples)} clips can be read; `ser data check --media` says why")
    return clips


async def ask_many(
    standalone: StandaloneReferee,
    clips: Sequence[ReadableSample],
    claims: Sequence[tuple[int, Claim]],
    method: Callable[..., Awaitable[list[T]]],
) -> list[tuple[T, ...]]:
    """For each claim, in order, the answer of every referee. A claim comes with the index of its clip. `method`: verify
    or probabilities of the standalone referee."""
    of_clip: dict[int, list[int]] = {}
    for place, (number, _) in enumerate(claims):
        of_clip.setdefault(number, []).append(place)
    answers: list[tuple[T, ...]] = [()] * len(claims)

    async def ask(number: int, places: list[int]) -> None:
        sample = clips[number].sample
        with await standalone.lease(sample) as lease:
            about = [claims[place][1] for place in places]
            for referee in range(len(standalone.pools)):
                replies = await method(sample, about, lease, referee)
                for place, reply in zip(places, replies, strict=True):
                    answers[place] += (reply,)

    await with_progress("judging", [ask(number, places) for number, places in of_clip.items()])
    return answers


async def with_progress(what: str, work: Sequence[Any]) -> list[Any]:
    """The results of coroutines, in order; a few run at once."""
    gate = asyncio.Semaphore(SAMPLES_AT_ONCE)
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(what, total=len(work))

        async def counted(coroutine: Any) -> Any:
            async with gate:
                result = await coroutine
            progress.advance(bar)
            return result

        return list(await asyncio.gather(*map(counted, work)))
