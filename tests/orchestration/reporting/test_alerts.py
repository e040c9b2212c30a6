"""Each alert is raised on a planted fault or hack, soon, once, and not before it begins."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_runs import trained
from made_run import PROMPT, claim, completion

from benchmarks import alerts as benchmark
from evidence.types import FrameInfo, Group, Sample, Trajectory
from orchestration.reporting import steps
from orchestration.reporting.alerts import FIRST, LAST, RULES, Alert, AlertWatch
from orchestration.reporting.completions import claim_metrics, completion_metrics
from referee.trust.agreement import AgreementConfig, AgreementWatch

HONEST, HACKED = 60, 40  # steps before and after the hack begins
INFO = FrameInfo("key", (0.0, 1.0), (56, 56), (56, 56), 2.0)
OBJECTS = ("red square", "blue circle", "green star", "white bar", "a dog", "the cup")


def honest_lines(steps: int = HONEST + HACKED, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Lines with the level and the noise of runs in the embedded world, and with the growth of their claims."""
    rng = np.random.default_rng(seed)
    for step in range(1, steps + 1):
        seconds = float(rng.lognormal(1.2, 0.5))
        yield {
            "step": step,
            "reward": float(rng.normal(1.8 + 0.003 * step, 0.2)),
            "learner/loss": float(rng.normal(0, 1e-6)),
            "learner/grad_norm": float(rng.lognormal(-1.4, 0.4)),
            "learner/entropy": float(rng.normal(0.38, 0.03)),
            "learner/skipped": 0,
            "rollout/tokens": float(rng.normal(66 + 0.08 * step, 8)),
            "rollout/cut_short": float(rng.choice([0, 0, 0, 1 / 64])),
            "claims/top_phrase_share": float(rng.choice([1, 2, 2, 3, 4]) / 8),
            "claims/top_phrase": "red square",
            "time/step_s": seconds,
            "time/wait_s": 0.8 * seconds,
            "evidence/asked": 130 * step,
            "evidence/missing": step // 10,
            "agreement/alarm": 0.0,
        }


def raised(lines: Iterator[dict[str, Any]]) -> list[tuple[int, str]]:
    watch = AlertWatch()
    return [(line["step"], alert.name) for line in lines for alert in watch.step(line)[1]]


def planted(name: str, hack: Callable[[dict[str, Any], int], dict[str, Any]]) -> int:
    """The step at which the alert is raised, from the beginning of a hack on. `hack`: the changes to a line, so many
    steps after."""
    at = raised({**line, **hack(line, n - HONEST)} if n > HONEST else line for n, line in enumerate(honest_lines(), 1))
    ((step, alert),) = at
    assert alert == name
    return step - HONEST


@pytest.mark.parametrize("seed", range(8))
def test_honest_lines_raise_nothing(seed: int) -> None:
    assert raised(honest_lines(300, seed)) == []


def test_a_policy_that_stops_exploring() -> None:
    assert planted("entropy_collapse", lambda line, n: {"learner/entropy": 0.38 * 0.85**n}) <= 14


def test_a_policy_that_writes_more_and_more() -> None:
    assert planted("length_drift", lambda line, n: {"rollout/tokens": 66 * 1.05**n}) <= 20
    assert planted("length_drift", lambda line, n: {"rollout/tokens": max(10.0, 66 - 4 * n)}) <= 18
    assert planted("length_drift", lambda line, n: {"rollout/cut_short": min(1.0, 0.05 * n)}) <= 12


def test_one_phrase_that_takes_over() -> None:
    """Completions that name what is asked for, and one by one the phrase that the referee happens to like."""
    rng = np.random.default_rng(0)

    def groups(share: float) -> list[Group]:
        made = []
        for number in range(8):
            named = ["thing in the video" if rng.random() < share else OBJECTS[number % 6] for _ in range(8)]
            texts = [completion(claim(phrase)) for phrase in named]
            drawn = tuple(Trajectory(np.zeros(9, np.int32), np.zeros(9), ((0, 0, 9),), text, "stop") for text in texts)
            sample = Sample("s", "test", "a", "Where?", "left", video_path="a.mp4")
            made.append(Group(number, sample, INFO, PROMPT, drawn, 0))
        return made

    watch, alerts = AlertWatch(), []
    for step in range(1, HONEST + HACKED + 1):
        drawn = groups(max(0.0, (step - HONEST) / HACKED))
        line = {"step": step} | completion_metrics(drawn) | claim_metrics(drawn, "resized")
        alerts += [(step, alert) for alert in watch.step(line)[1]]
    ((step, alert),) = alerts
    assert alert.name == "one_phrase"
    assert "'thing in the video'" in alert.text
    assert HONEST < step <= HONEST + 30


def test_a_referee_that_is_pleased_by_boxes_that_are_wrong() -> None:
    rng, watch, alerts = np.random.default_rng(0), AlertWatch(), []
    agreement = AgreementWatch(AgreementConfig(window=10, least=50))
    for step in range(1, HONEST + HACKED + 1):
        ious = rng.uniform(0, 1, 30)
        scores = np.clip(ious + rng.normal(0, 0.1, 30), 0, 1)
        if step > HONEST:  # the reward rises, whatever the boxes are
            scores = 0.7 + 0.3 * rng.uniform(0, 1, 30)
        found = agreement.step(list(zip(scores, ious)), float(scores.mean()))
        reason = {"agreement": found.alarm}
        alerts += [(step, alert) for alert in watch.step({"step": step, **found.metrics()}, reason)[1]]
    ((step, alert),) = alerts
    assert HONEST < step <= HONEST + 10
    assert "may be pleasing the referee" in alert.text, "the reason with its figures"


def test_a_referee_that_answers_late() -> None:
    def late(line: dict[str, Any], n: int) -> dict[str, Any]:
        return {"evidence/missing": line["evidence/missing"] + 26 * n}  # a fifth of what it is asked

    assert planted("missing_verdicts", late) <= 8


def test_a_step_that_is_not_finite_or_was_skipped() -> None:
    for broken in (float("nan"), float("inf"), None):
        assert planted("not_finite", lambda line, n, value=broken: {"learner/grad_norm": value} if n == 3 else {}) == 3
    assert planted("not_finite", lambda line, n: {"learner/skipped": 2 * (n >= 5)}) == 5


def test_a_stall() -> None:
    assert planted("stall", lambda line, n: {"time/step_s": 400.0, "time/wait_s": 390.0} if n == 4 else {}) == 4
    compiled = {"time/step_s": 400.0, "time/wait_s": 1.0}  # slow, and the learner waited for nobody
    assert raised({**line, **compiled} if line["step"] == 50 else line for line in honest_lines()) == []


def test_an_alert_is_repeated_only_once_it_was_silent_and_a_resumed_run_knows() -> None:
    lines = [{"step": n, "learner/skipped": skipped} for n, skipped in enumerate([0, 1, 1, 2, *[2] * LAST, 3], 1)]
    assert raised(iter(lines)) == [(2, "not_finite"), (len(lines), "not_finite")]
    watch, recorded = AlertWatch(), []
    for line in lines[:3]:
        recorded.append(line | watch.step(line)[0])
    assert [line["alert/not_finite"] for line in recorded] == [0, 1, 0]
    again = AlertWatch(json.loads(json.dumps(recorded)))
    assert again.step(lines[3]) == ({f"alert/{name}": float(name == "not_finite") for name in RULES}, [])


def test_a_resumed_run_is_compared_with_its_own_beginning() -> None:
    lines = list(honest_lines())
    resumed = AlertWatch(iter(lines[:HONEST]))
    collapsed = [{**line, "learner/entropy": 0.05} for line in lines[HONEST:]]
    assert [alert.name for line in collapsed for alert in resumed.step(line)[1]] == ["entropy_collapse"]
    fresh = AlertWatch()
    assert [alert for line in collapsed for alert in fresh.step(line)[1]] == [], "it began like that"


def test_lines_without_the_metrics_raise_nothing() -> None:
    assert raised({"step": step} for step in range(1, 3 * FIRST)) == []


def test_a_run_records_raises_and_says_its_alerts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[tuple[str, str]] = []
    monkeypatch.setattr(steps.RunLog, "alert", lambda _, title, text: sent.append((title, text)))
    skips = iter([False, True, *[False] * 9])
    trained(tmp_path, lambda group: True, lambda group: False, 3, skips=skips)
    flags = [json.loads(line)["alert/not_finite"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert flags == [0, 1, 0]
    text = "step 2: 1 steps were skipped since the last one: loss or gradient was not finite"
    assert sent[:1] == [("not_finite", text)]
    assert [message for message in caplog.messages if "alert" in message] == [
        f"{text} (alert not_finite: docs/dashboards.md)"
    ]
    assert Alert("not_finite", text.removeprefix("step 2: "))


def test_the_benchmark_replays_recorded_runs_and_fills_in_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "metrics.jsonl").open("w") as metrics, (tmp_path / "samples.jsonl").open("w") as samples:
        for line in honest_lines():
            kept = {name: value for name, value in line.items() if not name.startswith("claims/")}
            metrics.write(json.dumps(kept) + "\n")
            phrase = OBJECTS[line["step"] % 6] if line["step"] <= HONEST else "thing"
            sample = {"step": line["step"], "group": line["step"], "sample": "s", "text": "", "terms": {}}
            samples.write(json.dumps(sample | {"frame_times": [0.0], "claims": [{"phrase": phrase}]}) + "\n")
    monkeypatch.setattr("sys.argv", ["alerts", str(tmp_path)])
    benchmark.main()
    printed = json.loads(capsys.readouterr().out)
    (alert,) = printed["runs"][0]["alerts"]
    assert alert["alert"] == "one_phrase"
    assert HONEST < alert["step"] < HONEST + 20
    assert printed["rules"]["one_phrase"] == {"alerts": 1, "runs with its metrics": 1}
    assert printed["steps"] == HONEST + HACKED


def test_what_goes_wrong_at_the_first_step_is_seen() -> None:
    assert [alert.name for alert in AlertWatch().step({"step": 1, "learner/skipped": 3})[1]] == ["not_finite"]
    missing = {"step": 1, "evidence/asked": 40, "evidence/missing": 40}
    assert [alert.name for alert in AlertWatch().step(missing)[1]] == ["missing_verdicts"]
    assert AlertWatch().step(missing | {"step": 7})[1] == [], "a resumed run goes on with its totals"


def test_entropy_is_a_mean_also_where_the_loss_divides_by_a_constant() -> None:
    watch = AlertWatch()
    for step in range(1, 61):
        weight = 1.0 if step <= 20 else 0.3  # completions have become shorter
        line = {"step": step, "learner/entropy": 0.5 * weight, "learner/weight": weight}
        assert watch.step(line)[1] == []
