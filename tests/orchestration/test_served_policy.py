"""One running policy for many questions: every benchmark from its files to its report, and what interrupts a run."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmark_data import MADE, make
from serving import ROOT, SETTINGS, served

from evidence.types import Sample
from orchestration import cli
from orchestration.commands import eval_run
from orchestration.supervision.standalone_policy import StandalonePolicy, check_policy
from rollout.dataset.shapes import make_shapes
from rollout.frames.store import FrameStore

pytestmark = pytest.mark.slow
Served = tuple[StandalonePolicy, Callable[..., Any]]
MODEL = ["--model", str(ROOT / "assets/policy"), "--config", str(ROOT / "tests/orchestration/serving.yaml")]
MORE = [*SETTINGS, "engine.max_num_seqs=8"]


@pytest.fixture(scope="module")
def policy(ray_cluster: Any) -> Iterator[Served]:
    with served("engine.max_num_seqs=8") as served_policy:
        yield served_policy


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes") / "data"
    make_shapes(folder, train=0, val=0, test=24, workers=1)
    return folder


@pytest.fixture(scope="module")
def clip(shapes: Path) -> Path:
    return min(shapes.rglob("*.mp4"))


@pytest.fixture
def asked(policy: Served, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the questions that commands ask from now on, which they ask the running policy."""
    running, run = policy
    ids: list[str] = []

    def ask_all(config: Any, located: Any, record: Any, progress: Any) -> None:
        config, _ = check_policy(config, [question.sample for question in located])
        store = running.store
        if config.contract != store.contract:
            store = FrameStore(config.contract, int(config.cluster.frames_gib * 2**30), config.frames)
        ids.extend(question.ask.id for question in located)
        own = StandalonePolicy(config, running.encoder, running.pool, store)
        run(eval_run.answer(own, located, record, progress))

    monkeypatch.setattr(eval_run, "ask_all", ask_all)
    return ids


def report(capsys: pytest.CaptureFixture[str], *argv: object) -> Any:
    assert cli.main(["eval", *map(str, argv), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]


def test_a_cancelled_task_frees_its_places_in_the_engine(policy: Served, clip: Path) -> None:
    served_policy, run = policy
    sample = Sample("1", "test", "", "Where is the red circle at 3.0 s?", "", video_path=str(clip))

    async def work() -> float:
        with await served_policy.lease(sample) as lease:
            prompt = served_policy.prompt(sample, lease)
            await served_policy.generate(prompt, lease.frames)  # compilation
            began = time.monotonic()
            await served_policy.generate(prompt, lease.frames, n=64, temperature=1.0)
            of_64 = time.monotonic() - began
            many = asyncio.create_task(served_policy.generate(prompt, lease.frames, n=2000, temperature=1.0))
            await asyncio.sleep(2)
            assert not many.done()
            many.cancel()
            began = time.monotonic()
            (greedy,) = await served_policy.generate(prompt, lease.frames)
            assert "<answer>" in greedy.text
            return (time.monotonic() - began) / of_64

    assert run(work()) < 5, "the engine went on with 2000 completions that nobody awaits"


@pytest.mark.parametrize("name", MADE)
def test_a_benchmark_runs_from_its_files_to_its_report(name, asked, clip, tmp_path, capsys) -> None:
    data, out = make(name, tmp_path / "data", clip), tmp_path / "out"
    scored = report(capsys, name, *MODEL, "--data", data, "--out", out, *MORE)
    rows = MADE[name][0]("clip_1")
    prompts = 5 * len(rows) if name == "vstar" else len(rows)
    assert (scored["benchmark"], scored["n"], len(asked)) == (name, len(rows), prompts)
    facts = scored["run"]
    assert (facts["asked"], facts["completed"], facts["missing"]) == (prompts, prompts, 0)
    assert all(line["text"] and len(line["frame_times"]) == 8 for line in lines(out))
    if name == "mvbench":
        first, second = (line["frame_times"] for line in sorted(lines(out), key=lambda line: line["id"]))
        assert first[0] < 2 <= second[0] < second[-1] <= 5 < first[-1], "the second row is about a part of the video"
    assert json.loads((out / "report.json").read_text()) == scored
    # A record is scored as a file of completions is, without asking anything again.
    asked.clear()
    again = report(capsys, name, "--rescore", out)
    if name == "vstar":
        as_file = report(capsys, name, "--results", out / "results.json")
        assert as_file["chain1"] == scored["chain1"]
    else:
        as_file = report(capsys, name, "--data", data, "--completions", out / "completions.jsonl")
    assert as_file["counts"] == again["counts"] == scored["counts"]
    assert again["samples"] == scored["samples"]
    assert asked == []


@pytest.mark.parametrize("name", ["videomme", "longvideobench"])
def test_subtitles_of_sampled_frames_are_in_the_prompt(name, asked, clip, tmp_path, capsys) -> None:
    data, subtitles = make(name, tmp_path / "data", clip), tmp_path / "subtitles"
    subtitles.mkdir()
    srt = "1\n00:00:01,500 --> 00:00:02,500\nred circle\n"
    (subtitles / "clip_1.srt").write_text(srt)
    (subtitles / "clip_1_en.json").write_text(json.dumps([{"timestamp": [1.5, 2.5], "text": "red circle"}]))
    plain = report(capsys, name, *MODEL, "--data", data, "--out", tmp_path / "plain", *MORE)
    with_them = report(
        capsys, name, *MODEL, "--data", data, "--subtitles", subtitles, "--out", tmp_path / "with", *MORE
    )
    assert (plain["run"]["with_subtitles"], with_them["run"]["with_subtitles"]) == (0, plain["n"])
    before, after = (lines(tmp_path / folder)[0]["prompt_tokens"] for folder in ("plain", "with"))
    assert after > before


def test_a_dataset_is_scored_by_its_tasks_and_boxes(asked, shapes, tmp_path, capsys) -> None:
    scored = report(capsys, "data", *MODEL, "--data", shapes / "test.json", "--out", tmp_path, *MORE)
    assert scored["n"] == 24
    assert scored["exact"] > 0.4  # of four places; .72 on 512 clips
    assert scored["box_iou"] > 0.2
    assert scored["tiou"] is None


def test_videos_that_cannot_be_shown_are_counted_and_tried_again(asked, shapes, clip, tmp_path, capsys) -> None:
    rows = MADE["perception_test"][0]("clip_1") + MADE["perception_test"][0]("clip_2")
    rows += MADE["perception_test"][0]("clip_3")
    folder = tmp_path / "data"
    data = make("perception_test", folder, clip)
    data.write_text(json.dumps(rows))
    (folder / "clip_2.mp4").write_bytes(b"no video")
    argv = ["perception_test", *MODEL, "--data", data, "--out", tmp_path / "out", *MORE]
    first = report(capsys, *argv)
    assert {key: first["run"][key] for key in ("completed", "unreadable", "missing")} == {
        "completed": 1,
        "unreadable": 1,
        "missing": 1,
    }
    assert first["counts"]["unanswered"] == 2
    places = " ".join(fault["first"] for fault in first["faults"])
    assert "clip_2.mp4" in places
    assert "clip_3" in places
    for name in ("clip_2", "clip_3"):
        (folder / f"{name}.mp4").write_bytes(clip.read_bytes())
    asked.clear()
    second = report(capsys, *argv)
    assert second["run"]["completed"] == 3
    assert asked == ["clip_2/3", "clip_3/3"]


def test_a_run_that_was_killed_goes_on_per_question(asked, shapes, tmp_path, capsys) -> None:
    argv = ["eval", "data", *MODEL, "--data", str(shapes / "test.json"), "--out", str(tmp_path), *MORE]
    record = tmp_path / "completions.jsonl"
    command = [sys.executable, "-m", "orchestration", *argv, "engine.max_num_seqs=1"]
    # Not a pipe: processes that outlive the killed one for a while would keep it open.
    with (tmp_path / "errors").open("w") as errors, subprocess.Popen(command, cwd=ROOT, stderr=errors) as process:
        while process.poll() is None and not (record.exists() and record.stat().st_size):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, (tmp_path / "errors").read_text()
    with record.open("ab") as file:
        file.write(b'{"id": "23/torn", "te')
    done = {line["id"] for line in map(json.loads, record.read_text().splitlines()[:-1])}
    assert 0 < len(done) < 24
    assert report(capsys, *argv[1:])["run"]["completed"] == 24
    assert len(asked) == 24 - len(done)
    assert not done & set(asked)
    assert os.path.exists(tmp_path / "report.json")


def test_a_record_takes_no_completions_of_other_settings(asked, shapes, tmp_path, capsys) -> None:
    argv = ["eval", "data", *MODEL, "--data", str(shapes / "test.json"), "--limit", "1", "--out", str(tmp_path)]
    assert cli.main([*argv, *MORE]) == 0
    capsys.readouterr()
    assert cli.main([*argv, *MORE, "contract.frames=4"]) == 2
    error = capsys.readouterr().err
    assert "contract.frames = 8, not 4" in error
    assert error.count("\n") == 1


def test_a_text_model_of_ones_own_judges_and_its_replies_are_kept(asked, clip, tmp_path, capsys) -> None:
    data, out = make("tempcompass", tmp_path / "data", clip), tmp_path / "out"
    assert report(capsys, "tempcompass", *MODEL, "--data", data, "--out", out, *MORE)["counts"]["unjudged"] == 1
    judge = ["--judge", f"vllm:{ROOT / 'assets/policy'}"]  # any model replies; what it says is another matter
    judged = report(capsys, "tempcompass", "--rescore", out, *judge)
    assert (judged["run"]["judge"]["failed"], judged["counts"]["judged"]) == (0, 1)
    assert judged["judge"] == "policy"
    assert report(capsys, "tempcompass", "--rescore", out, *judge)["run"]["judge"]["cached"] == 1
