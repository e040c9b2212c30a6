"""Asking referees about many claims of a dataset, with progress shown: what calibration and attacks have in common.

Guarantee: a clip that cannot be read and a claim without a verdict are told apart and counted, never made up.
"""

from __future__ import annotations

import asyncio
import math
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
class View:
    """A sample whose frames can be read."""

    sample: Sample
    info: FrameInfo


def phrases_of(samples: Sequence[Sample]) -> list[str]:
    return sorted({phrase for sample in samples for items in sample.key_items.values() for phrase in items})


async def views_of(standalone: StandaloneReferee, samples: Sequence[Sample], counts: Counter[str]) -> list[View]:
    """The samples that can be read; others are counted as unreadable. Raises BadInput if none can."""

    async def view(sample: Sample) -> View | None:
        try:
            with await standalone.look(sample) as lease:
                return View(sample, lease.info)
        except UnreadableMedia:
            counts["unreadable"] += 1
            return None

    found = await with_progress("decoding", [view(sample) for sample in samples])
    views = [view for view in found if view is not None]
    if not views:
        raise BadInput(f"none of the {len(samples)} clips can be read; `ser data check --media` says why")
    return views


async def judge(
    standalone: StandaloneReferee,
    views: Sequence[View],
    claims: Sequence[tuple[int, Claim]],
    method: Callable[..., Awaitable[list[T]]],
) -> list[tuple[T, ...]]:
    """What every referee says of each claim, in order; a claim comes with the index of its view. `method` is one of the
    house: verify or probabilities."""
    of_view: dict[int, list[int]] = {}
    for place, (number, _) in enumerate(claims):
        of_view.setdefault(number, []).append(place)
    answers: list[tuple[T, ...]] = [()] * len(claims)

    async def about(number: int, places: list[int]) -> None:
        sample = views[number].sample
        with await standalone.look(sample) as lease:
            asked = [claims[place][1] for place in places]
            for referee in range(len(standalone.pools)):
                for place, said in zip(places, await method(sample, asked, lease, referee), strict=True):
                    answers[place] += (said,)

    await with_progress("judging", [about(number, places) for number, places in of_view.items()])
    return answers


async def with_progress(what: str, work: Sequence[Any]) -> list[Any]:
    """The results of coroutines, in order; a few run at once."""
    gate = asyncio.Semaphore(SAMPLES_AT_ONCE)
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(what, total=len(work))

        async def counted(one: Any) -> Any:
            async with gate:
                result = await one
            progress.advance(bar)
            return result

        return list(await asyncio.gather(*map(counted, work)))


def plain(value: Any) -> Any:
    """For JSON: floats rounded to what they can mean, NaN as null."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 4)
    return value
