"""`ser report` on runs as `ser train` writes them, and on what is left of them."""

from __future__ import annotations

import fcntl
import json
import re
from pathlib import Path
from typing import Any

import pytest
from made_run import claim, completion, made_run, small_config

from orchestration import cli
from rollout.dataset.shapes import make_shapes

TEXTS = [[completion(claim("red square")), completion(claim("blue circle", "1,1,9,9"), claim("red square"))]] * 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world") / "shapes"
    make_shapes(out, train=2, val=0, test=2, questions=1, workers=1)
    return out


@pytest.fixture
def run_dir(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return made_run(small_config(world, tmp_path / "run"), TEXTS, monkeypatch)


def report(*arguments: object, out: Path) -> str:
    assert cli.main(["report", *map(str, arguments), "--out", str(out), "--overwrite"]) == 0
    return out.read_text(encoding="utf-8")


def data_of(page: str) -> dict[str, Any]:
    return json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[0])


def test_a_finished_run_is_shown_with_its_frames_curves_and_settings(run_dir: Path, tmp_path: Path) -> None:
    page = report(run_dir, out=tmp_path / "page.html")
    assert ">finished<" in page
    assert "3 of 3" in page
    assert "Learner-bound: the learner waited in 50% of the time of the steps: 38% for completions, 12% for ver" in page
    for title in ("Reward", "Term ser: r_SER", "Loss", "Staleness", "Completions per second", "Seconds of a step"):
        assert f"<strong>{title}</strong>" in page
    assert "pacing.staleness" not in page, "1 is the default"
    assert "learner.schedule.lr" in page
    assert "Evidence reward (r_SER)" in page
    data = data_of(page)
    training = [entry for entry in data["entries"] if entry["kind"] == "training"]
    assert [entry["step"] for entry in training] == [1, 2, 3]
    assert {entry["task"] for entry in training} == {"temporal-spatial free-form QA"}
    assert all(entry["missing"] is None and len(entry["frames"]) == 8 for entry in data["entries"])
    assert training[0]["frames"] == training[2]["frames"], "the frames of one clip are embedded once"
    assert len(data["images"]) == 8 * 4
    assert all(image.startswith("data:image/webp;base64,") for image in data["images"])
    second = training[0]["completions"][1]
    assert [(shown["phrase"], shown["relevance"], shown["localization"]) for shown in second["claims"]] == [
        ("blue circle", 0.9, 0.8),
        ("red square", 0.9, 0.8),
    ]
    assert second["terms"] == {"reward": 1.0, "acc": 0.5, "format": 1.0, "ser": 0.25}
    heldout = [entry for entry in data["entries"] if entry["kind"] == "held-out"]
    assert [entry["step"] for entry in heldout] == [0, 0, 3, 3]


def test_runs_of_different_configs_are_overlaid(
    run_dir: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = small_config(world, tmp_path / "other", "seed=7", "reward=open_o3")
    made_run(other, TEXTS[:2], monkeypatch, finished=False, heldout=False)
    page = report(run_dir, other.run_dir, out=tmp_path / "page.html")
    assert ">finished<" in page
    assert ">interrupted<" in page
    assert "2 of 3" in page
    assert "≠ seed" in page
    assert [run["name"] for run in data_of(page)["runs"]] == ["run", "other"]


def test_a_run_that_is_under_way_is_read_and_left_alone(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = made_run(small_config(world, tmp_path / "run"), TEXTS[:1], monkeypatch, finished=False)
    files = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    with (run_dir / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        page = report(run_dir, out=tmp_path / "page.html")
    assert ">running<" in page
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == files
    assert ">interrupted<" in report(run_dir, out=tmp_path / "page.html")
    # The clips "after" are of an earlier end of this run: none are compared.
    assert {entry["step"] for entry in data_of(page)["entries"] if entry["kind"] == "held-out"} == set()


def test_what_is_torn_missing_or_unknown_is_said_and_the_rest_is_shown(run_dir: Path, tmp_path: Path) -> None:
    for name in ("metrics.jsonl", "samples.jsonl"):
        with (run_dir / name).open("a") as file:
            file.write('{"step": 4, "gro')
    lines = (run_dir / "samples.jsonl").read_text().splitlines(keepends=True)
    strange = [json.dumps({"step": 2, "text": "no claims"}), json.dumps(json.loads(lines[0]) | {"claims": [{}]})]
    (run_dir / "samples.jsonl").write_text("\n".join(strange) + "\n" + "".join(lines[2:]))
    (run_dir / "config.yaml").write_text("teleport: true\n" + (run_dir / "config.yaml").read_text())
    page = report(run_dir, out=tmp_path / "page.html")
    assert "metrics.jsonl: 1 line written in part, left out" in page
    assert "samples.jsonl: 1 line written in part, left out" in page
    assert "samples.jsonl: 1 line without what this version writes, left out" in page
    assert "samples.jsonl: 1 group that this version cannot read, left out" in page
    assert "config.yaml: unknown key teleport" in page
    assert "teleport" in page.split("Settings</h2>")[1]
    entries = [entry for entry in data_of(page)["entries"] if entry["kind"] == "training"]
    assert [entry["step"] for entry in entries] == [2, 3]
    assert all("configuration" in entry["missing"] for entry in entries)


def test_videos_that_are_gone_cost_their_frames_only(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    make_shapes(copy, train=2, val=0, test=2, questions=1, workers=1)
    run_dir = made_run(small_config(copy, tmp_path / "run"), TEXTS, monkeypatch)
    next(copy.rglob("train-000000.mp4")).unlink()
    entries = {entry["step"]: entry for entry in data_of(report(run_dir, out=tmp_path / "page.html"))["entries"]}
    assert "train-000000.mp4: no such file" in entries[1]["missing"]
    assert entries[2]["missing"] is None
    assert len(entries[1]["completions"]) == 2


def test_the_number_of_prompts_is_bounded_and_said(run_dir: Path, tmp_path: Path) -> None:
    page = report(run_dir, "--samples", 2, out=tmp_path / "page.html")
    assert len(data_of(page)["entries"]) == 2
    assert "2 of 7 recorded prompts are on this page" in page
    assert "0 of 7 recorded prompts" in report(run_dir, "--samples", 0, out=tmp_path / "page.html")


def test_a_run_without_steps_or_samples_has_a_page_that_says_so(run_dir: Path, tmp_path: Path) -> None:
    for path in run_dir.iterdir():
        if path.name not in ("config.yaml", "lock"):
            path.unlink()
    page = report(run_dir, out=tmp_path / "page.html")
    assert ">not begun<" in page
    assert "There is no step to draw yet." in page
    assert "No completions are recorded" in page
    assert "No run holds an evaluation of held-out clips." in page


def test_what_is_no_run_is_refused_in_one_line(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    taken = tmp_path / "taken.html"
    taken.touch()
    refused = {
        "holds neither config.yaml nor metrics.jsonl": [tmp_path / "empty"],
        "no such folder": [tmp_path / "nothing"],
        "is a file; give the folder of a run": [run_dir / "config.yaml"],
        "is given 2 times": [run_dir, run_dir],
        "exists already": [run_dir, "--out", taken],
        "must be 0 or more": [run_dir, "--samples", -1],
    }
    for message, arguments in refused.items():
        capsys.readouterr()
        out = [] if "--out" in arguments else ["--out", tmp_path / "new.html"]
        assert cli.main(["report", *map(str, [*arguments, *out])]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "new.html").exists()
