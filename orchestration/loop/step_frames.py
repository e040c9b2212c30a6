"""The frames of a step's groups on the learner ranks, decoded again where a node took them along."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

import ray

from evidence.errors import RunFailed, UnreadableMedia
from evidence.types import Group
from rollout.frames.store import FrameStore, Lease

Parts = TypeVar("Parts")
Fetched = TypeVar("Fetched")


async def fetch_frames(
    held: Sequence[tuple[Group, Lease]],
    parts_of: Callable[[list[ray.ObjectRef]], Parts],
    fetch: Callable[[Parts], Fetched],
    store: FrameStore,
) -> tuple[Parts, Fetched]:
    """(parts, what `fetch` returns), once the ranks hold the frames of all groups.

    parts_of: lays out the groups, given refs to their frames. fetch: brings the frames of these parts to the ranks; it
    is called again, with new refs, as often as frames are lost. Raises RunFailed where they cannot be decoded again.
    """
    while True:
        await asyncio.gather(*(_renew(group, lease) for group, lease in held))
        parts = await asyncio.to_thread(parts_of, [lease.frames for _, lease in held])
        try:
            return parts, await asyncio.to_thread(fetch, parts)
        except ray.exceptions.ObjectLostError as error:
            if not store.lost(error):
                raise


async def _renew(group: Group, lease: Lease) -> None:
    """Decode the frames of a group again if they were lost. Raises RunFailed where the pixels would differ."""
    try:
        await lease.renew()
    except UnreadableMedia as error:
        raise RunFailed(f"frames were lost with their node, and cannot be decoded again: {error}") from None
    if lease.info.key != group.frames.key:
        path = group.sample.media_path
        raise RunFailed(f"{path}: its frames were lost with their node, and now only another decoder reads them")
