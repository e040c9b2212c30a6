"""The real loop: going on from a state, the export at the end, and a run without progress."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fake_runs import started, trained

from evidence.errors import Interrupted, RunFailed
from orchestration.loop.ledger import Ledger, State
from orchestration.loop.run_state import RunState
from orchestration.loop.training import Training
from orchestration.supervision.checkpoint_writer import CheckpointWriter


def test_after_a_restart_schedules_and_logs_follow_the_step_and_publications_the_version(tmp_path: Path) -> None:
    # The weights of step 4 were published again, under a new version.
    ledger = Ledger()
    for group in range(8):
        for move in (ledger.add, ledger.generate, ledger.score, ledger.ready):
            move(group)
        ledger.train(group, group // 2 + 1)
    ledger.settle()
    state = RunState(step=4, version=9, restarts=[[4, 9]], ledger=ledger.snapshot())
    run = trained(tmp_path, lambda group: True, lambda group: False, 6, state=state)
    assert run.parts.learner.steps == [4, 5]
    assert run.parts.versions == [10, 11]
    assert set(run.parts.pipeline.progress) <= {4 / 6, 5 / 6}
    logged = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert logged == [5, 6]
    assert [run.ledger.entry(group).step for group in run.ledger.groups(State.TRAINED)] == [5, 5, 6, 6]
    assert run.ledger.counts()["trained"] == 12


def test_a_run_goes_on_from_its_state_with_the_groups_that_were_ready(tmp_path: Path) -> None:
    run = trained(tmp_path / "whole", lambda group: group % 3 > 0, lambda group: False, 12)
    states: list[RunState] = []

    async def stop(training: Training, saves: Any) -> None:
        if training.admission.step == 5 and len(training.maker.ready) >= 2:
            states.append(training.state())
            raise Interrupted

    first_half, training = started(tmp_path / "parts", lambda group: group % 3 > 0, lambda group: False, 12)
    first_half._leave_if_asked = stop  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        asyncio.run(first_half._train(training))
    first_half.journal.close()
    (state,) = states
    plain = RunState.of(json.loads(json.dumps(state.plain(), allow_nan=False)), "x")
    second = trained(tmp_path / "parts", lambda group: group % 3 > 0, lambda group: False, 12, state=plain)
    batches = training.parts.learner.batches[:5] + second.parts.learner.batches
    assert sorted(group for batch in batches for group in batch) == sorted(
        group for batch in run.parts.learner.batches for group in batch
    )
    assert second.ledger.counts()["trained"] == 24
    tokens = second.parts.pipeline.tokens
    assert tokens["trained"] == 24 * 4, "of the steps before the interruption, too"
    assert tokens["zero_variance"] == 4 * second.ledger.rejections()["zero_variance"]
    assert second.ledger.rejections().keys() == run.ledger.rejections().keys()
    # Those that were ready are not drawn again.
    drawn_again = set(map(int, plain.ready)) & set(second.parts.pipeline.rollout_pool.drawn)
    assert not drawn_again


def test_the_model_is_exported_before_anything_else_can_fail(tmp_path: Path) -> None:
    run, training = started(tmp_path, lambda group: True, lambda group: False, 2)

    async def fails() -> None:
        if training.admission.step == 2:
            raise RunFailed("an engine died as the run ended")

    training.parts.pipeline.rollout_pool.settled = fails  # type: ignore[method-assign]
    with pytest.raises(RunFailed, match="as the run ended"):
        asyncio.run(run._train(training))
    assert training.parts.learner.exported == tmp_path / "model"


def test_a_run_without_progress_says_where_its_groups_are(tmp_path: Path) -> None:
    run, training = started(tmp_path, lambda group: True, lambda group: False, 2, overrides=("limits.stall_s=0.05",))

    async def hang(*_: Any) -> Any:
        await asyncio.sleep(60)

    training.parts.pipeline.rollout_pool.generate = hang  # type: ignore[method-assign]
    states = r"^no group ended within 0.05 s \(limits.stall_s\); the groups are 4 generating\n"
    with pytest.raises(RunFailed, match=states + "  learner: waits for groups"):
        asyncio.run(run._train(training))


def test_a_signal_during_the_last_wait_for_a_checkpoint_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, training = started(tmp_path, lambda group: True, lambda group: False, 2)
    begun: list[int] = []

    def finish(writer: CheckpointWriter) -> None:
        run.interruption.requested = "SIGTERM"

    monkeypatch.setattr(CheckpointWriter, "finish", finish)
    monkeypatch.setattr(CheckpointWriter, "begin", lambda writer, step, state: begun.append(step))
    monkeypatch.setattr(CheckpointWriter, "require", lambda writer, step: None)
    with pytest.raises(Interrupted, match=r"SIGTERM: .* is saved after step 2"):
        asyncio.run(run._train(training))
    assert begun == [2]
