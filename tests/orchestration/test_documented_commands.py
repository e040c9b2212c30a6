"""The commands of the documentation that need no engine run as they stand, page by page and in order.

What a page takes from its reader lies in the folder: its placeholders (FILE, MODEL, …) are files of these names.
"""

from __future__ import annotations

import json
import shutil
from itertools import groupby
from pathlib import Path

import pytest
from benchmark_data import videomme, vstar
from made_run import claim, completion, made_run, small_config
from page_commands import ROOT, blocks, commands

from orchestration import cli
from orchestration.sweeps.state import RunRecord, SweepState
from rollout.dataset.shapes import make_shapes

# The tutorial is run as a whole by tests/test_docs.py.
RUN = [command for command in commands() if command.runs and command.page != "tutorial.md"]
BY_PAGE = {page: list(of_page) for page, of_page in groupby(RUN, key=lambda command: command.page)}
EXIT_CODES = {"doctor": {0, 1}}  # 1: this machine would fail a run
FEWER_CLIPS = {"1500": "4", "64": "0", "512": "4"}
SEEDS = [f"runs/quickstart-seeds/runs/seed-{seed}" for seed in range(3)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documented") / "world"
    make_shapes(folder, train=2, val=0, test=2, questions=1, workers=1)
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("configs", "assets"):
        Path(name).symlink_to(ROOT / name)
    Path("MODEL").symlink_to("assets/policy")
    return tmp_path


def write_dataset(world: Path) -> None:
    """The example of a dataset on the page, twice, with clips of the embedded world."""
    example = next(text for kind, text in blocks(ROOT / "docs/data.md") if '"id": "kitchen-7"' in text)
    row = json.loads(example)
    Path("clips").mkdir()
    for name, split in (("kitchen", "train"), ("other", "test")):
        shutil.copy(next((world / "videos" / split).rglob("*.mp4")), f"clips/{name}.mp4")
    second = row | {"id": "kitchen-9", "question": "What falls then?"}
    for path, rows in {
        "FILE": [row, second],
        "my.json": [row, second],
        "TEST": [row | {"id": "a", "video": "clips/other.mp4"}],
    }.items():
        Path(path).write_text(json.dumps(rows))


def write_runs(world: Path, monkeypatch: pytest.MonkeyPatch, first: str, *copies: str) -> None:
    texts = [[completion(claim("red square")), completion(claim("red square"), answer="top right")]] * 2
    made_run(small_config(world, Path(first)), texts, monkeypatch)
    for copy in copies:
        shutil.copytree(first, copy)


def write_benchmarks() -> None:
    questions = videomme("clip")
    answers = {"answer_vqa": "top left", "answer_temporal": [1, 2], "answer_spatial": {"1": [5, 5, 40, 40]}}
    Path("videomme.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    completions = [{"id": question["question_id"], "text": "<answer>B</answer>"} for question in questions]
    Path("completions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in completions))
    Path("results.json").write_text(json.dumps([row | answers for row in vstar("clip")]))


def write_inputs(page: str, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page in ("data.md", "gpu.md", "README.md"):
        write_dataset(world)
    if page == "data.md":
        write_runs(world, monkeypatch, "RUN")
    if page == "report.md":
        write_runs(world, monkeypatch, "runs/quickstart", "runs/seed-0", "runs/seed-1")
    if page == "sweeps.md":
        write_runs(world, monkeypatch, *SEEDS)
        records = [RunRecord(f"seed-{seed}", "quickstart", seed, [], "", "done") for seed in range(3)]
        SweepState("quickstart-seeds", "quickstart", records).write(Path(SEEDS[0]).parents[1])
    if page == "election.md":
        Path("FILE.jsonl").write_text(next(text for kind, text in blocks(ROOT / "docs" / page) if kind == "jsonl"))
    if page == "evaluation.md":
        write_benchmarks()
    if page == "reward.md":
        shutil.copy(world / "train.json", "data.json")
        ids = [sample["id"] for sample in json.loads(Path("data.json").read_text())]
        text = completion(claim("red square"))
        lines = [{"id": str(name), "text": text, "frame_size": [56, 56], "frame_times": [0.0, 1.0]} for name in ids]
        Path("completions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("page", BY_PAGE)
def test_the_commands_of_a_page_run_in_order(
    page: str, folder: Path, world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_inputs(page, world, monkeypatch)
    for command in BY_PAGE[page]:
        capsys.readouterr()
        code = cli.main([FEWER_CLIPS.get(word, word) for word in command.words[1:]])
        out, err = capsys.readouterr()
        assert code in EXIT_CODES.get(command.words[1], {0}), f"{command}\n{out}{err}"
        if command.output:
            Path(command.output).write_text(out)


def test_most_pages_with_commands_are_run() -> None:
    assert len(RUN) > 20
