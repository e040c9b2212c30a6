"""Elections among candidates that are drawn concurrently: the same result as one by one, and the rest is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from evaluation.election.candidates import Candidate
from evaluation.election.drawing import Held, hold_election
from evaluation.election.election import Method, elect
from evaluation.election.majority import Majority
from evaluation.election.open_o3 import OpenO3
from evaluation.election.rler import Rler
from evaluation.election.self_certainty import SelfCertainty
from evaluation.election.sparse_to_dense import SparseToDense

SURE = "<think>a b c d</think><keyframes>[3, 5]</keyframes><confidence>0.9</confidence><answer>{}</answer>"


class Drawer:
    """Candidates with these answers, that take these times. `running`, `most`: drawn at once. `asked`: frames."""

    def __init__(self, answers: str, seconds: Sequence[float] = (), total: int = 128):
        self.answers, self.seconds, self.total = answers, seconds, total
        self.running = self.most = 0
        self.cancelled: list[int] = []
        self.asked: list[int | None] = []

    async def __call__(self, number: int, frames: int | None) -> Candidate:
        self.asked.append(frames)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.seconds[number % len(self.seconds)] if self.seconds else 0)
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        finally:
            self.running -= 1
        return self.candidate(number, frames)

    def candidate(self, number: int, frames: int | None = None) -> Candidate:
        answer = self.answers[number % len(self.answers)]
        shown = min(frames or 16, self.total)
        return Candidate(SURE.format(answer), frames=shown, crop_scores=(2,), logprobs=(-0.1 * (1 + number % 3),))


def held(method: Method, draw: Drawer, at_once: int = 8) -> Held:
    return asyncio.run(hold_election(method, draw, at_once, draw.total))


@pytest.mark.parametrize("method", [Rler(), Rler(stop_lead=1), Majority(stop_decided=True), OpenO3(), SelfCertainty()])
@pytest.mark.parametrize("seconds", [(0.0,), (0.02, 0.0, 0.01), (0.0, 0.01, 0.03)])
def test_the_result_does_not_depend_on_which_candidate_is_ready_first(method, seconds):
    draw = Drawer("BBCBC", seconds)
    assert held(method, draw).election.end() == elect((draw.candidate(n) for n in range(100)), method)


def test_a_stop_cancels_the_candidates_that_are_being_drawn():
    draw = Drawer("B", (0.0, 0.0, 0.0, 60.0))
    result = held(Rler(), draw)
    assert (result.election.end().used, len(result.candidates), result.begun) == (3, 3, 8)
    assert {3, 7} <= set(draw.cancelled)
    assert draw.running == 0


def test_no_more_are_drawn_than_can_count_or_are_allowed_at_once():
    draw = Drawer("BC", (0.001,))
    assert held(Majority(), draw).begun == 8
    assert draw.most == 8
    draw = Drawer("BC", (0.001,))
    assert held(Majority(), draw, at_once=3).begun == 8
    assert draw.most == 3


def test_a_denser_round_begins_once_the_one_before_is_counted():
    draw = Drawer("BC", (0.002, 0.0))
    result = held(SparseToDense(per_round=4, first_frames=8, most_frames=32), draw)
    assert draw.asked == [8] * 4 + [16] * 4 + [32] * 4
    assert result.election.end().used == 12
    draw = Drawer("BBBBC")
    assert held(SparseToDense(per_round=4, first_frames=8, most_frames=32), draw).begun == 4


@pytest.mark.parametrize("total", [20, 16])
def test_a_video_with_fewer_frames_than_a_round_wants_ends_the_election(total):
    draw = Drawer("BC", total=total)
    result = held(SparseToDense(per_round=4, first_frames=8, most_frames=128), draw)
    assert [candidate.frames for candidate in result.candidates][-4:] == [total] * 4
    assert result.begun == (12 if total == 20 else 8)
    assert result.election.end().answer == "B"


def test_a_candidate_that_fails_ends_the_others():
    draw = Drawer("B", (0.0, 60.0))

    async def failing(number: int, frames: int | None) -> Candidate:
        if number == 0:
            await asyncio.sleep(0.01)
            raise RuntimeError("the engine died")
        return await draw(number, frames)

    with pytest.raises(RuntimeError, match="the engine died"):
        asyncio.run(hold_election(Majority(), failing, 4, 16))
    assert draw.running == 0


def test_whoever_is_cancelled_cancels_all_candidates():
    draw = Drawer("B", (60.0,))

    async def work() -> None:
        task = asyncio.create_task(hold_election(Majority(), draw, 4, 16))
        await asyncio.sleep(0.01)
        assert draw.running == 4
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert draw.running == 0

    asyncio.run(work())
    assert sorted(draw.cancelled) == [0, 1, 2, 3]
