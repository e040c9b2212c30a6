"""`ser elect`: what it prints, and the one line for bad input."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from evaluation.election import METHODS
from orchestration import cli

ROOT = Path(__file__).parents[3]
LINE = {"id": "q1", "text": "<think>I look</think><keyframes>[3, 5]</keyframes><answer>B</answer>", "frames": 16}
FULL = LINE | {"confidence": 0.8, "crop_scores": [2, 1], "logprobs": [-0.1, -0.2]}


@pytest.fixture
def file(tmp_path: Path):
    def write(*lines: Any) -> Path:
        path = tmp_path / "c.jsonl"
        path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
        return path

    return write


def elect(path: Path, method: str, *arguments: str) -> int:
    return cli.main(["elect", "--candidates", str(path), "--method", method, *arguments])


def printed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_one_line_per_question_in_the_order_of_the_file(file, capsys):
    other = FULL | {"id": 2, "text": "<think>x</think>nothing"}
    path = file(FULL, other, FULL, "", FULL)
    assert elect(path, "majority", "--json") == 0
    assert printed(capsys) == [
        {"id": "q1", "answer": "B", "scores": [1.0, 1.0, 1.0], "used": 3, "margin": 1.0},
        {"id": "2", "answer": None, "scores": [0.0], "used": 1, "margin": 0.0},
    ]


@pytest.mark.parametrize("method", METHODS)
def test_every_method(file, capsys, method):
    assert elect(file(FULL, FULL, FULL), method, "--json") == 0
    (line,) = printed(capsys)
    assert (line["answer"], line["used"], line["margin"]) == ("B", 3, 1.0)


def test_the_example_of_the_documentation(tmp_path, capsys):
    page = (ROOT / "docs/election.md").read_text()
    example, result = (page.split(f"```{kind}\n")[1].split("```")[0] for kind in ("jsonl", "json"))
    path = tmp_path / "example.jsonl"
    path.write_text(example)
    assert elect(path, "rler", "--json") == 0
    assert printed(capsys) == [json.loads(result)]


@pytest.mark.parametrize("name", METHODS)
def test_every_constant_is_documented(name):
    section = (ROOT / "docs/election.md").read_text().split(f"\n## `{name}`\n")[1].split("\n## ")[0]
    keys = {
        key for row in section.split("\n") if row.startswith("| `") for key in re.findall("`(\\w+)`", row.split("|")[1])
    }
    assert keys == {field.name for field in fields(METHODS[name])}


def test_constants_are_keys(file, capsys):
    path = file(*[FULL] * 8)
    assert elect(path, "rler", "--json", "stop_least=5") == 0
    assert elect(path, "rler", "stop_confidence=0.9", "candidates=6", "--json") == 0
    assert [line["used"] for line in printed(capsys)] == [5, 6]


def test_scores_of_rler(file, capsys):
    """Two words of 320, K = 2: transparency sin²(pi 2/320)."""
    assert elect(file(LINE, LINE | {"confidence": 1.0}), "rler", "--json") == 0
    (line,) = printed(capsys)
    parts = 2 / 3 + 0.000385515 + 1
    assert line["scores"] == pytest.approx([parts / 3, (parts + 1) / 4], abs=1e-6)


def test_the_table(file, capsys):
    hostile = FULL | {"id": "q2", "text": "<think>x</think><answer>\x1b[31m\n" + "long " * 40 + "</answer>"}
    assert elect(file(FULL, hostile, FULL | {"id": "q3", "text": ""}), "majority") == 0
    head, first, second, third, summary = capsys.readouterr().out.splitlines()
    assert head.split() == ["id", "answer", "used", "margin"]
    assert first.split() == ["q1", "B", "1/1", "1.000"]
    assert "\x1b" not in second
    assert "…" in second
    assert third.split() == ["q3", "(none)", "1/1", "0.000"]
    assert summary == "3 questions, 1.0 candidates each, 1 without an answer"


def test_answers_in_other_scripts_are_printed_as_they_are(file, capsys):
    assert elect(file(FULL | {"text": "<answer>แมว</answer>"}), "majority", "--json") == 0
    assert '"answer": "แมว"' in capsys.readouterr().out


def test_null_is_a_missing_value(file, capsys):
    assert elect(file(FULL | {"confidence": None, "logprobs": None}), "rler", "--json") == 0
    assert elect(file(FULL | {"frames": None}), "rler", "--json") == 2
    assert "line 1: has no frames, which the method rler needs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "key"),
    [("rler", "frames"), ("open_o3", "crop_scores"), ("self_certainty", "logprobs"), ("sparse_to_dense", "frames")],
)
def test_a_missing_input_is_named_with_its_line(file, capsys, method, key):
    """Also where the election would stop before that line."""
    lines = [FULL] * 9 + [{name: value for name, value in FULL.items() if name != key}]
    path = file(*lines)
    assert elect(path, method, "--json") == 2
    output = capsys.readouterr()
    assert output.err == f"ser: {path}: line 10: has no {key}, which the method {method} needs of each candidate\n"
    assert output.out == ""


BAD = {
    "not JSON": ("{", "line 2: not JSON"),
    "deep": ("[" * 100_000, "line 2: not JSON"),
    "list": ("[1]", "line 2: must be a JSON object, not list"),
    "no id": ({"text": "x"}, "line 2: has no id"),
    "no text": ({"id": "x"}, "line 2: has no text"),
    "null text": (FULL | {"text": None}, "line 2: has no text"),
    "text": (FULL | {"text": ["x"]}, "line 2: text = ['x']: must be text"),
    "id": (FULL | {"id": 1.5}, "line 2: id = 1.5: must be text or a whole number"),
    "true id": (FULL | {"id": True}, "line 2: id = True: must be"),
    "surrogate": ('{"id": "a", "text": "\\ud800"}', "line 2: text contains a lone surrogate"),
    "surrogate id": ('{"id": "\\ud800", "text": ""}', "line 2: id contains a lone surrogate"),
    "unknown key": (FULL | {"confidance": 1}, "line 2: unknown key 'confidance'; the nearest is confidence"),
    "no frames": (FULL | {"frames": 0}, "line 2: frames = 0: must be the number of frames shown, 1 to 100,000"),
    "half a frame": (FULL | {"frames": 1.5}, "line 2: frames = 1.5: must be"),
    "frames as text": (FULL | {"frames": "16"}, "line 2: frames = '16': must be"),
    "infinite frames": ('{"id": "a", "text": "", "frames": Infinity}', "line 2: frames = inf: must be"),
    "confidence": (FULL | {"confidence": 80}, "line 2: confidence = 80: must be a number from 0 to 1"),
    "confidence NaN": ('{"id": "a", "text": "", "confidence": NaN}', "line 2: confidence = nan: must be"),
    "true confidence": (FULL | {"confidence": True}, "line 2: confidence = True: must be"),
    "crop score": (FULL | {"crop_scores": [3]}, "line 2: crop_scores = [3]: must be a list with 0, 1, 2 or null"),
    "crop scores": (FULL | {"crop_scores": 2}, "line 2: crop_scores = 2: must be a list"),
    "no logprobs": (FULL | {"logprobs": []}, "line 2: logprobs = []: must be a list, not empty"),
    "positive": (FULL | {"logprobs": [0.1]}, "line 2: logprobs = [0.1]: must be"),
    "infinite": ('{"id": "a", "text": "", "logprobs": [-Infinity]}', "line 2: logprobs = [-inf]: must be"),
    "far below": (FULL | {"logprobs": [-(10**400)]}, "line 2: logprobs = "),
    "mixed": (FULL | {"logprobs": [-0.1, [-0.1]]}, "line 2: logprobs = "),
    "ragged": (FULL | {"logprobs": [[-0.1], [-0.1, -2]]}, "line 2: logprobs: tokens have lists of different lengths"),
}


@pytest.mark.parametrize(("line", "part"), BAD.values(), ids=BAD)
def test_a_bad_line_is_one_clear_line(file, capsys, line, part):
    path = file(FULL, line)
    assert elect(path, "majority", "--json") == 2
    output = capsys.readouterr()
    assert output.err.startswith(f"ser: {path}: {part}")
    assert output.err.count("\n") == 1
    assert output.out == ""


def test_other_bad_input(file, tmp_path, capsys):
    good = file(FULL)
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    wrong = [
        ([tmp_path / "none.jsonl", "rler"], "cannot be read"),
        ([tmp_path, "rler"], "cannot be read"),
        ([binary, "rler"], "cannot be read"),
        ([empty, "rler"], "holds no candidate"),
        ([good, "rlr"], "--method rlr: must be one of rler, majority, open_o3, self_certainty, sparse_to_dense"),
        ([good, "rler", "stop_leest=2"], "unknown key stop_leest; the nearest known one is stop_least"),
        ([good, "rler", "stop_lead=2"], "stop_lead = 2.0: must be between 0 and 1"),
        ([good, "majority", "power=2"], "unknown key power"),
        ([good, "rler", "ngram"], "write it as key=value"),
    ]
    for arguments, part in wrong:
        assert elect(*arguments) == 2
        error = capsys.readouterr().err
        assert part in error
        assert error.count("\n") == 1


def test_it_imports_nothing_heavy(file):
    code = (
        "import sys; from orchestration.cli import main; "
        f"main(['elect', '--candidates', {str(file(FULL))!r}, '--method', 'rler']); "
        "sys.exit(str([m for m in ('torch', 'vllm', 'ray', 'transformers', 'cv2', 'decord') if m in sys.modules]))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert finished.stderr == "[]\n"
