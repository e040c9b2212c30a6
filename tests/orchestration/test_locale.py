"""In a locale without UTF-8, commands work or say in one line what the locale cannot encode; TMPDIR likewise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PLAIN = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def ser(*argv: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "orchestration", *map(str, argv)]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, timeout=300)


def dataset(folder: Path, image: str) -> Path:
    (folder / image).write_bytes(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    row = {"image": image, "task": "tâche", "question": "où ?", "answer": "là"}
    file = folder / "d.json"
    file.write_text(json.dumps([row], ensure_ascii=False), encoding="utf-8")
    return file


def test_output_is_utf_8_where_the_locale_has_no_such_characters(tmp_path: Path) -> None:
    done = ser("data", "check", dataset(tmp_path, "a.png"), **PLAIN)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "tâche" in done.stdout.decode("utf-8")
    done = ser("data", "convert", tmp_path / "d.json", tmp_path / "out.jsonl", "--to", "ser", **PLAIN)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8"))["answer"] == "là"


def test_a_path_that_the_locale_cannot_encode_is_one_line(tmp_path: Path) -> None:
    done = ser("data", "check", dataset(tmp_path, "é.png"), "--media", **PLAIN)
    assert done.returncode == 2
    (line,) = done.stderr.decode("utf-8").splitlines()
    assert "é.png" in line
    assert "cannot be encoded by this locale (ascii); set PYTHONUTF8=1" in line
    assert ser("data", "check", tmp_path / "d.json", "--media", **PLAIN | {"PYTHONUTF8": "1"}).returncode == 0


@pytest.mark.parametrize("command", [("data", "check", "{data}", "--media"), ("data", "make-shapes", "{tmp}/shapes")])
def test_a_temporary_folder_too_long_for_sockets_is_one_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    data, long = dataset(tmp_path, "a.png"), tmp_path / ("x" * 80)
    long.mkdir()
    done = ser(*(part.format(data=data, tmp=tmp_path) for part in command), TMPDIR=str(long))
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(f"ser: TMPDIR = {long}: too long for the sockets in it; set it to")
