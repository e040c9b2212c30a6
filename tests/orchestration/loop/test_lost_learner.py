"""The loss of the learner within a run, in the real loop with fakes."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_runs import FakeLease, started
from test_run_state import scored

from evidence.errors import RunFailed
from evidence.supervision import Restarts
from evidence.types import Sample
from orchestration import train
from orchestration.loop import lineages
from orchestration.loop.group_maker import GroupMaker
from orchestration.loop.journal import Journal
from orchestration.loop.lineages import Lineage
from orchestration.loop.parity import Parity
from orchestration.loop.run_state import RunState
from orchestration.supervision.waiting import ActorLost


def always(group: int) -> bool:
    return True


def never(group: int) -> bool:
    return False


def test_the_frames_of_a_step_in_which_the_learner_is_lost_are_released(tmp_path: Path) -> None:
    run, training = started(tmp_path, always, never, 6)
    train = training.parts.learner.train

    async def lost_in_third(groups: list[Any], step: int, store: Any) -> dict[str, float]:
        if step == 2:
            raise ActorLost("learner rank 1 died while taking an optimizer step")
        return await train(groups, step, store)

    training.parts.learner.train = lost_in_third
    FakeLease.unreleased = 0
    with pytest.raises(ActorLost):
        asyncio.run(run._train(training))
    assert FakeLease.unreleased == 0, "the next lineage needs their room in the store"


def test_the_frames_of_ready_groups_are_decoded_at_once_when_a_run_goes_on(tmp_path: Path) -> None:
    _, training = started(tmp_path, always, never, 6)
    groups, decoding = range(4), 0
    everything = asyncio.Event()

    async def prepare(sample: Sample) -> tuple[Any, None]:
        nonlocal decoding
        decoding += 1
        if decoding == len(groups):
            everything.set()
        await everything.wait()
        return FakeLease(), None

    async def restore() -> GroupMaker:
        maker = training.maker
        maker.pipeline.prepare = prepare  # type: ignore[method-assign, assignment]
        await maker.restore([(group, training.inputs.train[group]) for group in groups], ready, 5.0)
        return maker

    ready: Any = {group: scored_group(group) for group in groups}
    assert set(asyncio.run(restore()).ready) == set(groups)


def scored_group(group: int) -> Any:
    made = scored([0.0, 1.0])
    return replace(made, group=replace(made.group, id=group, oldest_version=0, frames=FakeLease.info))


def test_a_learner_that_is_lost_again_and_again_before_the_next_checkpoint_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = itertools.count(step=3600.0)  # between two losses, so that no hour has two of them
    parts: Any = SimpleNamespace(
        learner_restarts=Restarts(3, clock=lambda: next(hours)),
        restart_learner=lambda: None,
        learner=SimpleNamespace(gang=SimpleNamespace(load=lambda record: None)),
        publish=lambda version, limit_s: asyncio.sleep(0),
    )
    saved: list[Path] = []
    monkeypatch.setattr(lineages, "newest_whole", lambda folder: saved[-1] if saved else None)
    monkeypatch.setattr(lineages.Record, "read", lambda record: SimpleNamespace(state=RunState(step=4).plain()))
    journal = Journal(tmp_path)

    async def lose(lineage: Lineage, times: int) -> Lineage:
        for _ in range(times):
            lineage = await lineages.relearn(ActorLost("rank 0 died"), lineage, tmp_path, parts, journal, 1.0)
        return lineage

    async def run() -> None:
        lineage = await lose(lineages.first(journal), 3)
        saved.append(tmp_path / "step-000004.json")
        lineage = await lose(lineage, 3)
        message = r"^rank 0 died; the learner was lost 4 times in a row after the checkpoint of step 4, before the next"
        with pytest.raises(RunFailed, match=message):
            await lose(lineage, 1)

    asyncio.run(run())


def test_a_run_that_goes_on_with_no_step_left_exports_its_model(tmp_path: Path) -> None:
    run, training = started(tmp_path, always, never, 4, state=RunState(step=4, version=4))
    asyncio.run(run._train(training))
    assert training.parts.learner.exported == tmp_path / "model"  # type: ignore[attr-defined]
    assert training.parts.learner.steps == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("lost", ["ledger.jsonl", "the lines of its steps"])
def test_no_checkpoint_is_saved_without_its_ledger_and_its_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    run, training = started(tmp_path, always, never, 2)
    given_up: list[str] = []
    saves: Any = SimpleNamespace(gave_up=lambda step, reason: given_up.append(reason))
    if lost == "ledger.jsonl":
        monkeypatch.setattr(run.journal, "checkpoint", lambda step: False)
    else:
        monkeypatch.setattr(training.report, "sync", lambda: False)

    async def save() -> None:
        with training.report:
            await run._checkpoint(training, saves)

    asyncio.run(save())
    (reason,) = given_up
    assert lost in reason


def test_the_loss_of_a_rank_before_the_first_step_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, training = started(tmp_path, always, never, 2)
    parts, losses = training.parts, [ActorLost("learner rank 1 died while computing log-probs")]
    parts.learner_restarts = Restarts(1)
    parts.learner.stop = lambda: None

    async def check_parity(*_: Any) -> Parity:
        if losses:
            raise losses.pop()
        return Parity(1, 0.0, 0.0, 0.0)

    async def start_parts(*_: Any) -> Any:
        return parts

    monkeypatch.setattr(train, "check_parity", check_parity)
    monkeypatch.setattr(train, "start_parts", start_parts)
    training.parts.pipeline.rollout_pool.admission = SimpleNamespace(version=1)  # type: ignore[attr-defined]
    asyncio.run(run.run())
    assert parts.versions == [1, 2, 3], "the weights of the new ranks, and those of each step"  # type: ignore[attr-defined]
