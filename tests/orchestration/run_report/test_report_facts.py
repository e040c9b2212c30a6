"""What a report says of runs in numbers, curves and words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.comparison import as_evaluation, comparison
from evaluation.heldout import ClipRecord
from orchestration.run_report.charts import MOST_POINTS, Chart, charts, smoothed, thinned
from orchestration.run_report.facts import before_after, state, troubles
from orchestration.run_report.plot import svg
from orchestration.run_report.recorded import Run, names
from orchestration.run_report.settings_table import settings_rows
from orchestration.run_report.stages import (
    COMPLETIONS,
    EVALUATION,
    LEARNER,
    REST,
    STAGES,
    VERDICTS,
    bound_by,
    stage_seconds,
    totals,
)

HERE = Path("run")


def run(*steps: dict[str, Any], **more: Any) -> Run:
    return Run(HERE, "run", steps=tuple({"step": n, **step} for n, step in enumerate(steps, 1)), **more)


def timed(wait: float, verdicts: float, learner: float, step: float = 10.0, **more: float) -> dict[str, float]:
    return {
        "time/step_s": step,
        "time/wait_s": wait,
        "time/wait_referee_s": verdicts,
        "learner/seconds": learner,
        **more,
    }


def test_the_stages_of_a_step_add_up_to_it() -> None:
    seconds = stage_seconds(timed(6, 2, 3, **{"time/eval_s": 5}))
    assert seconds == {COMPLETIONS: 4, VERDICTS: 2, EVALUATION: 5, LEARNER: 3, REST: 1}
    # A rank may measure a little more than the loop, and the referee's wait may begin before the step.
    assert stage_seconds(timed(6, 9, 8)) == {COMPLETIONS: 0, VERDICTS: 6, EVALUATION: 0, LEARNER: 4, REST: 0}
    assert stage_seconds({"time/step_s": 1.0}) is None
    assert totals([timed(9, 9, 1), timed(6, 2, 3), {}, timed(0, 0, 10)])[LEARNER] == 13, "without the first step"
    assert totals([{}]) == {}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            timed(6, 1, 4),
            "Rollout-bound: the learner waited in 60% of the time of the steps: 50% for completions, 10% ",
        ),
        (timed(6, 5, 4), "Referee-bound: "),
        (timed(1, 0, 9, **{"time/eval_s": 90}), "Evaluation-bound: "),
        (
            timed(4, 4, 5),
            "Learner-bound: the learner waited in 40% of the time of the steps: 40% for verdicts; more or",
        ),
        (timed(4, 4, 1), "Bound by what follows the training of a step: "),
    ],
)
def test_one_sentence_says_what_bounds_a_run(line: dict[str, float], words: str) -> None:
    assert bound_by(totals([line])).startswith(words)
    assert bound_by({}) == ""


def test_curves_have_gaps_where_a_step_lacks_a_value_and_ignore_what_is_no_number() -> None:
    steps: Any = [{"reward": 1.0, "learner/loss": None}, {"reward": None}, {"reward": "high"}, {"reward": 3}]
    (chart,) = charts([run(*steps)])
    assert (chart.title, chart.section) == ("Reward", "Reward and evidence")
    np.testing.assert_array_equal(chart.lines[0].y, [1, np.nan, np.nan, 3])
    assert charts([run({"reward": None}), run()]) == []


def test_runs_are_overlaid_and_staleness_is_drawn_with_its_bound() -> None:
    stale = {"staleness/mean": 0.5, "staleness/max": 1, "staleness/bound": 2}
    evaluations = ({"step": 2, "set": "heldout", "version": 2, "reward": 0.3, "n": 4},)
    first, second = run(stale, stale), run(stale | timed(1, 0, 2), evaluations=evaluations)
    drawn = {chart.title: chart for chart in charts([first, second])}
    lines = [(line.run, line.label, line.y[0]) for line in drawn["Staleness"].lines]
    assert lines == [(n, *value) for n in (0, 1) for value in (("mean", 0.5), ("largest", 1), ("bound", 2))]
    assert [line.run for line in drawn["heldout: reward"].lines] == [1]
    stages = drawn["Seconds of a step: run"]
    assert stages.stacked
    assert [line.label for line in stages.lines] == [STAGES[0], STAGES[3], STAGES[4]], "the others took no time"
    assert "Completions per second" not in drawn, "the number of a step's completions is in the config"


def test_long_runs_are_thinned_to_means() -> None:
    x, y = np.arange(10_000.0), np.full(10_000, np.nan)
    y[5_000:] = 2.0
    few_x, few_y = thinned(x, y)
    assert len(few_x) == MOST_POINTS
    assert np.isnan(few_y[:200]).all()
    assert (few_y[200:] == 2).all()
    np.testing.assert_allclose(few_x[:2], [12, 37])
    np.testing.assert_allclose(smoothed(np.array([0.0] * 10 + [1.0] * 10))[8:12], [0, 1 / 3, 2 / 3, 1])


def test_the_terms_that_pay_are_lines_of_one_chart() -> None:
    share = "learner/advantage_share/"
    first, second = run({f"{share}ser": 0.75, f"{share}acc": 0.25}), run({f"{share}ser": 1.0})
    (chart,) = charts([first, second])
    assert chart.title == "Which term pays"
    assert [(line.run, line.label, line.y[0]) for line in chart.lines] == [
        (0, "ser", 0.75),
        (0, "acc", 0.25),
        (1, "ser", 1),
    ]


def test_a_drawn_chart_takes_its_colours_from_the_page() -> None:
    chart: Chart = charts([run({"reward": 1.0}, {"reward": 2.0})])[0]
    text = svg(chart)
    assert text == svg(chart)
    assert text.startswith("<svg")
    assert "currentColor" in text
    assert "var(--line)" in text
    assert "#010203" not in text
    assert not re.search(r"fill: ?(#ffffff|white)", text), "no background"
    assert " id=" not in re.sub(r'id="[mp][0-9a-f]+"', "", text), "names of groups would repeat"


def records(*rewards: float) -> list[ClipRecord]:
    return [
        ClipRecord(str(n), "text", reward, reward > 0.5, reward / 2, 2, 1, 0.1, (), (56, 56), (0.0,))
        for n, reward in enumerate(rewards)
    ]


def test_before_and_after_is_what_the_summary_says() -> None:
    before, after = records(0.1, 0.4, 0.3), records(0.9, 0.6, 0.7)
    heldout = {(0, "greedy"): before, (2, "greedy"): after, (0, "sampled"): before}
    greedy, sampled = before_after(3, run({}, {}, heldout=heldout))
    expected = comparison(as_evaluation(before), as_evaluation(after))
    changes = {change.measure: change for change in greedy.changes}
    reward = changes["Evidence reward (r_SER)"]
    assert (reward.before, reward.after) == (expected["reward_before"], expected["reward_after"])
    assert [reward.low, reward.high] == expected["reward_ci95"]
    assert (greedy.run, greedy.draw, greedy.clips) == (3, "greedy", 3)
    assert [(change.before is None, change.after) for change in sampled.changes] == [(False, None)] * 6
    assert before_after(0, run({}, heldout={(0, "greedy"): records(np.nan)})) == []


def test_the_state_of_a_run_follows_from_its_files() -> None:
    assert state(run({}, summary={"wall_s": 1.0}))[0] == "finished"
    assert state(run({}, held=True))[0] == "running"
    assert state(run({}))[0] == "interrupted"
    assert state(run())[0] == "not begun"


def test_what_went_wrong_is_counted_once() -> None:
    last = {"engines/restarts": 2, "frames/lost": 0, "rejected/poison": 3, "agreement/alarm": 1.0}
    found = dict(troubles(run({"agreement/alarm": 1.0}, last)))
    assert set(found) == {"2", "3"}
    assert found["3"] == "groups rejected: poison"
    assert [what for count, what in troubles(run({"agreement/alarm": 1.0}, last)) if count == "2"][1].startswith(
        "steps, 1"
    )


def test_the_steps_of_an_alert_are_counted() -> None:
    steps = [{"alert/one_phrase": held, "alert/agreement": held, "agreement/alarm": held} for held in (0.0, 1.0, 1.0)]
    assert dict.fromkeys(what for _, what in troubles(run(*steps))) == {
        "steps, 2 first, in which the reward rose while the referee's agreement with labels fell": None,
        "steps, 2 first, with the alert one_phrase": None,
    }


def test_settings_that_differ_are_listed_those_between_runs_first() -> None:
    first = {"seed": 0, "steps": 9, "pacing": {"staleness": 1}, "wandb": "offline", "run_dir": "a"}
    first |= {"data": {"train": [{"path": "a", "weight": 1.0, "tasks": []}]}, "teleport": True}
    first |= {"reward": {"terms": {"acc": {"use": "", "weight": 1.0}}}}
    second = first | {"pacing": {"staleness": 2}, "run_dir": "b"}
    rows = settings_rows([Run(HERE, "a", settings=first), Run(HERE, "b", settings=second)])
    assert [(row.key, row.values, row.differs) for row in rows] == [
        ("pacing.staleness", ("1", "2"), True),
        ("steps", ("9", "9"), False),
        ("data.train.0.path", ("a", "a"), False),
        ("teleport", ("true", "true"), False),
    ]


@pytest.mark.parametrize(
    ("paths", "shown"),
    [
        (["/x/a", "/y/b"], ["a", "b"]),
        (["/x/a/train", "/x/b/train"], ["a", "b"]),
        (["/x/a/train", "/y/a/train"], ["x", "y"]),
        (["/x/train"], ["train"]),
        (["/x/a/train", "/x/a/b"], ["train", "b"]),
    ],
)
def test_runs_have_short_names_of_their_own(paths: list[str], shown: list[str]) -> None:
    assert names([Path(path) for path in paths]) == shown
