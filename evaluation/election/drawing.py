"""Elections among candidates that are drawn while they are counted.

Guarantees: at most `at_once` candidates are drawn at a time; they are counted in the order of their numbers, whichever
is ready first, so the result does not depend on how fast they are drawn; when the election ends, or fails, or is
cancelled, those that are still being drawn are cancelled, and have ended when the call returns. Pure asyncio.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from evaluation.election.candidates import Candidate
from evaluation.election.election import Election, Method, NeedMore

# (number of the candidate, number of frames to show or None) -> the candidate
Draw = Callable[[int, int | None], Awaitable[Candidate]]


@dataclass(frozen=True)
class Held:
    """An election that has ended. candidates: those that were counted. begun: how many were begun to be drawn."""

    election: Election
    candidates: tuple[Candidate, ...]
    begun: int


async def hold_election(method: Method, draw: Draw, at_once: int, most_frames: int) -> Held:
    """Draw candidates until the election ends. most_frames: the number of frames that there are; a round that was shown
    all of them is the last."""
    election, candidates = Election(method), list[Candidate]()
    drawing: deque[asyncio.Future[Candidate]] = deque()
    begun = 0
    try:
        while isinstance(need := election.decision, NeedMore):
            if candidates and need.frames is not None and candidates[-1].frames == most_frames < need.frames:
                break
            while len(drawing) < min(at_once, need.most):
                drawing.append(asyncio.ensure_future(draw(begun, need.frames)))
                begun += 1
            candidates.append(await drawing[0])
            drawing.popleft()
            election.add(candidates[-1])
    finally:
        for task in drawing:
            task.cancel()
        await asyncio.gather(*drawing, return_exceptions=True)
    election.end()
    return Held(election, tuple(candidates), begun)
