"""The trace of a window of steps: its events, what is recorded, and when it is written."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from fake_engines import FakePool, generate
from fake_runs import trained

from evidence.errors import BadInput
from orchestration.config import load_config
from orchestration.reporting import trace as tracing
from orchestration.reporting.trace import EVALUATION, GROUPS, LEARNER, READY, Trace, record, span, work
from orchestration.reporting.trace_events import Span, trace_events
from orchestration.settings import MOST_TRACED, TrainConfig
from orchestration.supervision import fleet

Rows = dict[tuple[str, int], list[tuple[str, float, float]]]


def rows(events: list[dict[str, Any]]) -> Rows:
    """(name, start, end) of the spans of each thread, by the name of its process and its own number."""
    actors = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    found = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            lane = actors[event["pid"]], event["tid"]
            found[lane].append((event["name"], event["ts"], event["ts"] + event["dur"]))
    return dict(found)


def read(run_dir: Path) -> Rows:
    return rows(json.loads((run_dir / "trace.json").read_text())["traceEvents"])


def names(run_dir: Path, actor: str) -> list[str]:
    return [name for (of, _), spans in read(run_dir).items() if of == actor for name, _, _ in spans]


def test_actors_are_processes_in_order_and_times_are_microseconds_since_the_first_span() -> None:
    spans = [
        Span("rollout engine 10", "group 1", 100.5, 101.0),
        Span("rollout engine 2", "group 2", 100.25, 100.75, "group 2"),
        Span(LEARNER, "step 1", 100.0, 102.0),
        Span("referee 0", "group 3", 101.0, 101.5),
    ]
    events = trace_events(spans)
    processes = [event["args"]["name"] for event in events if event["name"] == "process_name"]
    assert processes == ["learner", "referee 0", "rollout engine 2", "rollout engine 10"]
    assert [event["args"]["sort_index"] for event in events if event["name"] == "process_sort_index"] == [1, 2, 3, 4]
    times = {"ts": 250_000.0, "dur": 500_000.0}
    assert {"ph": "X", "name": "group 2", "pid": 3, "tid": 1, **times, "args": {"for": "group 2"}} in events
    assert rows(events)["referee 0", 1] == [("group 3", 1_000_000.0, 1_500_000.0)]
    assert trace_events(list(reversed(spans))) == events, "whatever ends first"
    assert trace_events([]) == []


def test_what_runs_side_by_side_has_lanes_of_its_own_and_work_stays_in_its_lane() -> None:
    spans = [
        *(Span(GROUPS, "frames", 0, ended, work) for work, ended in (("a", 1), ("b", 2))),
        *(Span(GROUPS, "engine", 2, 3, work) for work in "ba"),
        Span(GROUPS, "frames", 4, 5, "c"),
    ]
    lanes = rows(trace_events(spans))
    assert lanes[GROUPS, 1] == [("frames", 0, 2e6), ("engine", 2e6, 3e6), ("frames", 4e6, 5e6)]
    assert lanes[GROUPS, 2] == [("frames", 0, 1e6), ("engine", 2e6, 3e6)]
    assert len(lanes) == 2
    of = [(event["tid"], event["args"]["for"]) for event in trace_events(spans) if event["name"] == "engine"]
    assert of == [(1, "b"), (2, "a")]


def test_spans_are_named_after_their_work_in_its_tasks_and_threads(tmp_path: Path) -> None:
    async def call(engine: str) -> None:
        with span(engine):
            await asyncio.sleep(0.001)

    def record_in_thread() -> None:
        with span("referee 0"):
            time.sleep(0.001)

    async def both() -> None:
        with work("group 7"):
            await asyncio.gather(call("rollout engine 0"), call("rollout engine 1"))
            await asyncio.to_thread(record_in_thread)
        with span("rollout engine 0", "loading weights 1"):
            pass

    with Trace(tmp_path, [1, 1]) as trace:
        trace.step_begins(1)
        asyncio.run(both())
    assert names(tmp_path, "rollout engine 0") == ["group 7", "loading weights 1"]
    assert names(tmp_path, "rollout engine 1") == names(tmp_path, "referee 0") == ["group 7"]


def test_what_ends_in_the_window_is_written_whole(tmp_path: Path) -> None:
    with Trace(tmp_path, [2, 3]) as trace:
        with span(EVALUATION, "since before"):
            for step in range(1, 4):
                trace.step_begins(step)
                with span(LEARNER, f"in {step}"):
                    time.sleep(0.002)
        with span(EVALUATION, "till after"):
            trace.step_begins(4)
        record(LEARNER, "afterwards", 0.0, 1.0)
    assert names(tmp_path, LEARNER) == ["in 2", "in 3"]
    assert [(name, ended > 6000) for name, _, ended in read(tmp_path)[EVALUATION, 1]] == [("since before", True)]


def test_memory_is_bounded_and_what_is_left_out_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "MOST_SPANS", 2)
    with Trace(tmp_path, [1, 2]) as trace:
        trace.step_begins(1)
        for number in range(5):
            record(LEARNER, f"{number}", 0.0, 1.0)
    facts = json.loads((tmp_path / "trace.json").read_text())["otherData"]
    assert facts == {"window": [1, 2], "spans_left_out": 3}
    assert len(names(tmp_path, LEARNER)) == 2


def test_a_full_disk_ends_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    with caplog.at_level(logging.WARNING), Trace(tmp_path, [1, 1]) as trace:
        trace._path = tmp_path / "full"
        trace.step_begins(1)
    assert "cannot be written (No space left on device); training goes on" in caplog.text


def test_an_engine_shows_the_groups_that_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet.ray, "kill", lambda engine: None)

    async def run() -> None:
        pool = FakePool()
        await pool.start()
        with work("group 4"):
            await generate(pool, 0)
        pool.update(1)
        await pool.settled()
        pool.stop()

    with Trace(tmp_path, [1, 1]) as trace:
        trace.step_begins(1)
        asyncio.run(run())
    assert names(tmp_path, "rollout engine 0") == ["group 4", "loading weights 1"]
    assert [name for name, _, _ in read(tmp_path)[GROUPS, 1]] == ["engine", "completions"]


def test_a_run_traces_the_steps_of_its_window(tmp_path: Path) -> None:
    trained(tmp_path, lambda group: True, lambda group: False, 5, overrides=("trace=[2, 3]",))
    assert [name for name, _, _ in read(tmp_path)[LEARNER, 1]] == ["step 2", "step 3"]
    assert names(tmp_path, LEARNER).count("waits for groups") == 2
    ready = names(tmp_path, READY)
    assert sorted(ready) == ["group 2", "group 3", "group 4", "group 5"], "those of the two steps, two in each"
    groups = names(tmp_path, GROUPS)
    assert groups.count("frames") == groups.count("referee") > 2
    assert not tracing._traces


def test_without_a_window_nothing_is_recorded_or_written(tmp_path: Path) -> None:
    trained(tmp_path, lambda group: True, lambda group: False, 2)
    assert not (tmp_path / "trace.json").exists()


@pytest.mark.parametrize("window", ["[1]", "[0, 2]", "[3, 2]", "[1, 200]", "[1, 2, 3]", f"[1, {MOST_TRACED + 1}]"])
def test_a_window_that_is_none_is_refused(window: str) -> None:
    with pytest.raises(BadInput, match=r"trace = \[.*\]: must be "):
        load_config(TrainConfig, "configs/experiment/quickstart.yaml", [f"trace={window}", "steps=100"])
