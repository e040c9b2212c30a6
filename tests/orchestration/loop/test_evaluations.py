"""Evaluation while training goes on, in the real loop with fakes: when, of which version, and what a resume repeats."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_runs import started

from evidence.errors import BadInput, Interrupted
from orchestration.loop.eval_sets import Results
from orchestration.loop.run_state import RunState
from orchestration.loop.training import Training
from orchestration.supervision.aside import Unmeasurable
from orchestration.train import Run


class FakeSet:
    """A set whose results are the `values` in turn. It ends once `open`."""

    samples = ()

    def __init__(self, name: str, *values: float):
        self.name, self.values = name, list(values)
        self.measured = 0
        self.open = asyncio.Event()
        self.open.set()

    async def measure(self, pipeline: Any, complete: Any, at_once: int) -> Results:
        await self.open.wait()
        self.measured += 1
        return Results({"acc": self.values.pop(0) if self.values else 0.5, "ci95": {"acc": [0.0, 1.0]}}, ["{}"])


class Engines:
    """Set aside by a pool of `size` engines. `spared`: whether they can be."""

    def __init__(self, training: Training, size: int):
        self.training, self.size, self.spared, self.aside = training, size, True, 0

    def set_aside(self) -> Any:
        if not self.spared:
            raise Unmeasurable("only one rollout engine runs, and training needs it")
        self.aside += 1

        async def unless_lost(work: Any) -> Any:
            return await work

        def give_back() -> None:
            self.aside -= 1

        version = self.training.admission.version
        return SimpleNamespace(version=version, complete=None, unless_lost=unless_lost, give_back=give_back)


def evaluating(
    tmp_path: Path,
    sets: list[FakeSet],
    steps: int,
    *overrides: str,
    engines: int = 2,
    state: RunState | None = None,
    paced: bool = True,
) -> tuple[Run, Training, Engines]:
    """A run that evaluates after every second step. paced: whether a step takes longer than an evaluation."""
    run, training = started(tmp_path, always, never, steps, overrides=("eval.every=2", *overrides), state=state)
    pool: Any = training.parts.pipeline.rollout_pool
    fleet = Engines(training, engines)
    pool.size, pool.set_aside = engines, fleet.set_aside
    training.evaluations.sets = sets
    training.evaluations._at_once = lambda: 1  # type: ignore[method-assign]
    train = training.parts.learner.train

    async def slowly(*arguments: Any) -> dict[str, float]:
        while paced and training.evaluations.under_way:
            await asyncio.sleep(0.001)
        return await train(*arguments)

    training.parts.learner.train = slowly  # type: ignore[method-assign]
    return run, training, fleet


def always(group: int) -> bool:
    return True


def never(group: int) -> bool:
    return False


def lines(folder: Path, name: str = "eval.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_each_result_names_the_step_and_the_version_that_was_measured(tmp_path: Path) -> None:
    run, training, engines = evaluating(tmp_path, [FakeSet("a", 0.1, 0.2, 0.3), FakeSet("b")], 6)
    asyncio.run(run._train(training))
    found = [(line["step"], line["version"], line["set"], line["acc"]) for line in lines(tmp_path)]
    assert found == [(2, 2, "a", 0.1), (2, 2, "b", 0.5), (4, 4, "a", 0.2), (4, 4, "b", 0.5), *found[4:]]
    assert found[4:] == [(6, 6, "a", 0.3), (6, 6, "b", 0.5)], "the last one is waited for"
    assert (tmp_path / "evaluations/step-000004/b.jsonl").read_text() == "{}\n"
    metrics = lines(tmp_path, "metrics.jsonl")
    assert [line["step"] for line in metrics] == [1, 2, 3, 4, 5, 6]
    assert (metrics[-1]["eval/measured"], metrics[-1]["time/eval_s"]) == (4, 0)
    assert engines.aside == 0


def test_only_weights_that_were_published_are_measured(tmp_path: Path) -> None:
    run, training, _ = evaluating(tmp_path, [FakeSet("a")], 7, "pacing.publish_every=3")
    asyncio.run(run._train(training))
    assert [(line["step"], line["version"]) for line in lines(tmp_path)] == [(3, 3), (6, 6)]
    assert {3, 6} <= set(training.parts.versions)  # type: ignore[attr-defined]


def test_the_learner_does_not_wait_and_the_next_evaluation_is_given_up(tmp_path: Path) -> None:
    async def work() -> None:
        slow = FakeSet("a")
        run, training, _ = evaluating(tmp_path, [slow], 6, paced=False)
        slow.open.clear()
        train = training.parts.learner.train

        async def after_evaluations(*arguments: Any) -> dict[str, float]:
            while training.evaluations.under_way:
                await asyncio.sleep(0.001)
            return await train(*arguments)

        report = training.report.step_ended

        def opened(step: int, *arguments: Any) -> None:
            report(step, *arguments)
            if step == 5:
                slow.open.set()
                training.parts.learner.train = after_evaluations

        training.report.step_ended = opened  # type: ignore[method-assign]
        await asyncio.wait_for(run._train(training), 20)

    asyncio.run(work())
    second, first, third = lines(tmp_path)
    assert (second["step"], second["not_measured"]) == (4, "the evaluation of step 2 was still under way")
    assert (first["step"], first["version"], first["acc"]) == (2, 2, 0.5)
    assert third["step"] == 6
    assert lines(tmp_path, "metrics.jsonl")[-1]["eval/not_measured"] == 1


def test_with_a_single_engine_it_runs_between_steps_and_the_wait_is_counted(tmp_path: Path) -> None:
    class Busy(FakeSet):
        async def measure(self, *arguments: Any) -> Results:
            before = training.admission.step
            await asyncio.sleep(0.3)
            assert training.admission.step == before
            return await super().measure(*arguments)

    run, training, _ = evaluating(tmp_path, [Busy("a")], 4, engines=1)
    asyncio.run(run._train(training))
    assert [line["step"] for line in lines(tmp_path)] == [2, 4]
    waits = [line["time/eval_s"] for line in lines(tmp_path, "metrics.jsonl")]
    assert waits[2] >= 0.3
    assert waits[:2] + waits[3:] == [0, 0, 0]


def test_a_set_that_cannot_be_measured_says_why_and_ends_nothing(tmp_path: Path) -> None:
    class Unreadable(FakeSet):
        async def measure(self, *_: Any) -> Results:
            raise BadInput("none of its clips can be evaluated")

    class Lost(FakeSet):
        async def measure(self, *_: Any) -> Results:
            raise Unmeasurable("rollout engine 0 died, and weights 2 are gone")

    run, training, engines = evaluating(tmp_path, [Unreadable("a"), Lost("b"), FakeSet("c")], 2)
    asyncio.run(run._train(training))
    reasons = [(line["set"], line["not_measured"]) for line in lines(tmp_path)]
    gone = "rollout engine 0 died, and weights 2 are gone"
    assert reasons == [("a", "none of its clips can be evaluated"), ("b", gone), ("c", gone)]
    run, training, engines = evaluating(tmp_path / "b", [FakeSet("a")], 2)
    engines.spared = False
    asyncio.run(run._train(training))
    assert lines(tmp_path / "b")[0]["not_measured"] == "only one rollout engine runs, and training needs it"


def test_a_defect_ends_the_run(tmp_path: Path) -> None:
    class Broken(FakeSet):
        async def measure(self, *_: Any) -> Results:
            raise KeyError("a")

    run, training, engines = evaluating(tmp_path, [Broken("a")], 40, paced=False)
    with pytest.raises(KeyError):
        asyncio.run(run._train(training))
    assert engines.aside == 0
    assert training.admission.step < 40, "at once"


def interrupted(tmp_path: Path, sets: list[FakeSet], at: int) -> RunState:
    """The state that a run saves which is asked to end after the step `at`, while its second set is measured."""

    async def work() -> RunState:
        run, training, _ = evaluating(tmp_path, sets, 8, paced=False)
        states: list[RunState] = []

        async def leave(training: Training, saves: Any) -> None:
            while training.evaluations.under_way and "a" not in training.evaluations._ended:
                await asyncio.sleep(0.001)
            if training.admission.step == at:
                states.append(training.state())
                raise Interrupted

        sets[1].open.clear()
        run._leave_if_asked = leave  # type: ignore[method-assign]
        with pytest.raises(Interrupted):
            await run._train(training)
        run.journal.close()
        return RunState.of(json.loads(json.dumps(states[0].plain())), "x")

    return asyncio.run(work())


def resumed(tmp_path: Path, sets: list[FakeSet], state: RunState) -> None:
    run, training, _ = evaluating(tmp_path, sets, state.step + 1, state=state.restarted(state.version + 5))
    asyncio.run(run._train(training))


def test_a_resume_with_the_weights_that_were_measured_repeats_only_what_had_not_ended(tmp_path: Path) -> None:
    state = interrupted(tmp_path, [FakeSet("a", 0.1), FakeSet("b")], at=2)
    assert state.evaluating == [2, 2]
    again = [FakeSet("a"), FakeSet("b", 0.7)]
    resumed(tmp_path, again, state)
    found = [(line["step"], line["version"], line["set"], line["acc"]) for line in lines(tmp_path)]
    assert found == [(2, 2, "a", 0.1), (2, 7, "b", 0.7)]
    assert [each.measured for each in again] == [0, 1]


def test_a_resume_after_later_steps_measures_no_other_weights_in_their_place(tmp_path: Path) -> None:
    state = interrupted(tmp_path, [FakeSet("a", 0.1), FakeSet("b")], at=3)
    again = [FakeSet("a"), FakeSet("b")]
    resumed(tmp_path, again, state)
    first, second, *later = lines(tmp_path)
    assert (first["set"], first["acc"]) == ("a", 0.1)
    reason = "the run was interrupted meanwhile, went on after step 3, and has no weights of step 2"
    assert (second["step"], second["version"], second["not_measured"]) == (2, 2, reason)
    assert {line["step"] for line in later} == {4}


def test_lines_of_steps_that_are_repeated_are_dropped(tmp_path: Path) -> None:
    interrupted(tmp_path, [FakeSet("a", 0.1), FakeSet("b")], at=2)
    assert lines(tmp_path) != []
    _, training, _ = evaluating(tmp_path, [], 2, state=RunState(step=1, version=9))
    with training.report:
        assert training.report.evaluations() == []
