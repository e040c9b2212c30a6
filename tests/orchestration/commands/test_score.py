"""`ser score`: recorded completions are rewarded as in training, and missing values are reported, never guessed."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evidence.errors import BadInput
from evidence.grammar import parse
from evidence.types import FrameInfo, Sample, Verdict
from orchestration import cli
from orchestration.commands.score import Output, scored_lines
from referee.reward.graph import RewardGraph
from referee.reward.recorded import RecordedCompletion
from referee.reward.settings import RewardConfig, TermConfig
from referee.terms.view import GroupView

ROOT = Path(__file__).parents[3]
SAMPLES = [
    {"id": "1", "task": "temporal QA", "question": "When?", "answer": "[2.0, 6.0]", "video_path": "a.mp4"},
    {
        "id": "2",
        "task": "temporal-spatial free-form QA",
        "question": "Where is the cup?",
        "answer": "on the table",
        "video_path": "a.mp4",
        "key_frames": [{"idx": 3, "time": 3.0}],
        "key_items": {"3": {"cup": [[0.1, 0.1, 0.5, 0.5]]}},
    },
]
RUN = {
    "data": {"train": "a", "heldout": "b"},
    "model": {"policy": "p", "referee": "r"},
    "reward": "ser",
    "steps": 1,
    "run_dir": "runs/x",
}
CLAIM = "<obj>red cup</obj><box>[10,10,50,50]</box>at<t>{time}</t>s"


def completion(time: float, answer: str) -> str:
    return f"<think>{CLAIM.format(time=time)} {CLAIM.format(time=8.0)}</think><answer>{answer}</answer>"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "samples.json").write_text(json.dumps([sample | {"source": "test"} for sample in SAMPLES]))
    return tmp_path


@pytest.fixture
def score(files: Path, capsys: Any) -> Any:
    def run(*lines: Any, reward: str = "open_o3", more: tuple[str, ...] = ()) -> Any:
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        (files / "completions.jsonl").write_text(text)
        argv = ["score", "--reward", reward, "--samples", str(files / "samples.json")]
        code = cli.main([*argv, "--completions", str(files / "completions.jsonl"), *more])
        printed = capsys.readouterr()
        return [json.loads(line) for line in printed.out.splitlines()] if code == 0 else (code, printed.err)

    return run


def test_each_line_has_its_terms_claims_and_flags_in_the_order_of_the_file(score):
    second = {"id": "2", "text": completion(4.0, "On the table."), "frame_size": [100, 100]}
    first = {"id": "1", "text": completion(3.0, "From <t>3</t>s to <t>7</t>s")}
    two, one = score(second, first)
    assert (two["id"], one["id"]) == ("2", "1")
    assert one["terms"] == {
        "ans_acc": 0,
        "ans_tiou": 0.6,
        "ans_viou": 0,
        "format": 1,
        "thk_temporal_segment": 0.5,
        "thk_temporal_point": 0,
        "thk_spatial": 0,
    }
    assert one["reward"] == pytest.approx(2.1)
    assert two["terms"]["thk_spatial"] == 0.5  # the second claim is 5 s from the key frame: gated to 0, but counted
    assert two["claims"][0] == {
        "phrase": "red cup",
        "box": [10, 10, 50, 50],
        "time": 4.0,
        "until": None,
        "flag": None,
    }
    assert one["flags"] == two["flags"] == []


def test_progress_sets_the_schedules(score):
    line = {"id": "2", "text": completion(4.0, "x"), "frame_size": [100, 100]}
    ((late,), (early,)) = score(line), score(line, more=("--progress", "0"))
    assert early["terms"]["thk_temporal_point"] > late["terms"]["thk_temporal_point"]
    assert score(line, more=("--progress", "2"))[0] == 2


def test_completions_of_one_sample_are_a_group(score):
    short = {"id": "2", "text": completion(4.0, "on the table"), "tokens": 100}
    long = short | {"tokens": 400}
    shuffled = short | {"shuffled": True, "text": completion(4.0, "nowhere")}
    lines = score(short, long, shuffled, reward="video_r1")
    assert [line["terms"]["length"] for line in lines] == [0, 1]
    assert [line["terms"]["t_grpo"] for line in lines] == [1, 1]
    alone, alike = score(short, long | {"tokens": None}, reward="video_r1")
    assert alone["terms"]["t_grpo"] is None
    assert alone["flags"] == ["t_grpo: left out, counted as 0", "length: left out, counted as 0"]
    assert alone["reward"] == alike["reward"] == 2


def test_malformed_completions_are_flagged_and_scored(score):
    (line,) = score({"id": "2", "text": "<think><obj>a</obj><box>[1]</box>", "frame_size": [100, 100]})
    assert line["reward"] == 0
    assert line["flags"][0] == "not well-formed"


def test_invalid_claims_are_listed_with_their_reason_beside_judged_ones():
    text = f"<think><obj>a hat</obj><box>[1,2,3]</box>at<t>1.0</t>s {CLAIM.format(time=3.0)}</think><answer>x</answer>"
    sample = Sample("1", "s", "free-form", "Who?", "x", video_path="a.mp4")
    frames = FrameInfo("k", (1.0, 3.0), (100, 100), (100, 100), 4.0)
    view = GroupView(sample, (text,), (parse(text),), frames, verdicts=([Verdict(1.0, 0.5)],))
    graph = RewardGraph(RewardConfig(terms={"ser": TermConfig()}))
    (line,) = scored_lines(graph, {"1": view}, [RecordedCompletion("line 1", "1", text)], {})
    hat, cup = line["claims"]
    assert (hat["phrase"], hat["box"], hat["flag"]) == ("a hat", None, view.completions[0].claims[0].reason)
    assert hat["flag"] is not None
    assert line["flags"] == [f"claim 0: {hat['flag']}"]
    assert (cup["phrase"], cup["score"], cup["flag"]) == ("red cup", 0.5, None)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 1: not JSON"),
        ({"id": "1"}, "line 1: has no text"),
        ({"id": "9", "text": ""}, "line 1: id = '9': no sample has it; samples are called 1, 2"),
        ({"id": "2", "text": completion(4.0, "x")}, "sample 2: this reward needs frame_size, [width, height]"),
        ({"id": "2", "text": "", "frame_size": [100]}, "frame_size = [100]: must be [width, height]"),
        ({"id": "2", "text": "", "frame_size": [math.nan, 100]}, "frame_size = [nan, 100]: must be a list of"),
        ({"id": "2", "text": "", "frame_size": [10**400, 100]}, "must be a list of finite numbers"),
        ({"id": "2", "text": "", "frame_size": [0.5, 100]}, "frame_size = [0.5, 100]: must be [width, height]"),
        ({"id": "2", "text": "", "frame_times": [2, 1]}, "frame_times must be 0 or more, and increase"),
        ({"id": "2", "text": "", "frame_times": [-1, 1]}, "frame_times must be 0 or more, and increase"),
        ({"id": "2", "text": "", "frame_times": [0, math.inf]}, "must be a list of finite numbers"),
        ({"id": "2", "text": "", "tokens": -1}, "tokens = -1: must be 0 or more"),
        ({"id": "2", "text": "<answer>\ud800</answer>"}, "text contains a lone surrogate, half of a character"),
        ({"id": "2", "text": 3}, "text = 3: must be of type str"),
        ("", "holds no completion"),
        (
            {"id": "2", "text": "", "frame_sizes": [1, 1]},
            "line 1: unknown key 'frame_sizes'; the nearest is frame_size",
        ),
        ({"id": "2", "text": "", "step": 1, "group": 0}, "line 1: unknown key 'step'"),
    ],
)
def test_a_faulty_line_is_refused_in_one_line(score, line, reason):
    code, error = score(line)
    assert code == 2
    assert reason in error
    assert error.count("\n") == 1


def test_completions_of_one_sample_must_share_their_frames(score):
    code, error = score(
        {"id": "2", "text": "", "frame_size": [100, 100]}, {"id": "2", "text": "", "frame_size": [200, 100]}
    )
    assert code == 2
    assert "line 2: its frame_size and frame_times differ from those of" in error


def test_a_users_own_recipe_with_a_users_own_term(files, score, monkeypatch):
    (files / "mine.py").write_text("def shout(view, *, mark='!'):\n    return [t.count(mark) for t in view.texts]\n")
    (files / "mine.yaml").write_text("terms:\n  shout: {use: 'mine:shout', weight: 2}\n")
    monkeypatch.chdir(files)
    (line,) = score({"id": "1", "text": "no!!"}, reward=str(files / "mine.yaml"))
    assert (line["reward"], line["terms"]) == (4, {"shout": 2})


def test_scoring_without_a_referee_imports_nothing_heavy(files, score):
    score({"id": "1", "text": ""})
    code = (
        "import sys; from orchestration.cli import main; "
        f"main(['score', '--reward', 'open_o3', '--samples', {str(files / 'samples.json')!r},"
        f" '--completions', {str(files / 'completions.jsonl')!r}]); "
        "sys.exit(str([m for m in ('torch', 'vllm', 'ray', 'transformers', 'cv2', 'decord') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stderr == "[]\n"


def test_out_creates_its_folder_and_refuses_an_existing_folder(files, score):
    line, out = {"id": "1", "text": "x"}, files / "new" / "scored.jsonl"
    assert score(line, more=("--out", str(out))) == []
    assert json.loads(out.read_text())["id"] == "1"
    assert score(line, more=("--out", str(files))) == (2, f"ser: --out {files}: is a folder; name a file\n")


def test_out_replaces_a_file_only_if_asked_and_only_once_all_is_scored(files, score, monkeypatch):
    out = files / "scored.jsonl"
    out.write_text("old")
    good, bad = {"id": "1", "text": "x"}, {"id": "2", "text": completion(4.0, "x")}
    code, error = score(good, reward="none", more=("--out", str(out)))
    assert (code, error) == (2, f"ser: --out {out}: exists already; name a new file, or replace it with --overwrite\n")
    assert score(good, bad, more=("--out", str(out), "--overwrite"))[0] == 2  # the second needs frame_size
    assert out.read_text() == "old"
    assert score(good, more=("--out", str(out), "--overwrite")) == []
    assert json.loads(out.read_text())["id"] == "1"
    assert score(good, more=("--overwrite",))[0] == 2
    assert sorted(path.name for path in files.iterdir()) == ["completions.jsonl", "samples.json", "scored.jsonl"]


def test_out_that_appears_meanwhile_is_not_replaced(tmp_path):
    def lines():
        yield "ours"
        (tmp_path / "out").write_text("theirs")

    with pytest.raises(BadInput, match=r"out: exists already"):
        Output(tmp_path / "out").write(lines())
    assert (tmp_path / "out").read_text() == "theirs"
    assert os.listdir(tmp_path) == ["out"]


def test_the_config_of_a_run_gives_the_space_of_its_boxes(files, score):
    text = completion(4.0, "x").replace("[10,10,50,50]", "[100,100,500,500]")
    line = {"id": "2", "text": text, "frame_size": [200, 100]}
    (files / "config.yaml").write_text(json.dumps(RUN | {"template": {"box_space": "thousand"}}))
    (scored,) = score(line, more=("--config", str(files / "config.yaml")))
    assert scored["claims"][0]["box"] == [20, 10, 100, 50]
    assert scored["terms"]["thk_spatial"] == 0.5
    code, error = score(line, more=("--config", "none.yaml"))
    assert (code, error.count("\n")) == (2, 1)
    assert "none.yaml: no such file" in error


def test_a_pipe_closed_by_its_reader_gives_no_stack_trace(files, score):
    score(*[{"id": "1", "text": "x"}] * 2000)  # above what a pipe holds, 64 KiB
    argv = ["--reward", "accuracy_only", "--samples", "samples.json", "--completions", "completions.jsonl"]
    command = f"{sys.executable} -m orchestration score {' '.join(argv)} | head -n 1"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, shell=True, cwd=files, env=env, capture_output=True, text=True, timeout=120)
    assert json.loads(done.stdout)["id"] == "1"
    assert done.stderr == "ser: stdout: cannot be written (its reader has ended)\n"
