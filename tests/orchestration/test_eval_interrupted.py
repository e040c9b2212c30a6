"""`ser eval --model` that is ended by Ctrl-C."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmark_data import make
from serving import ROOT

from orchestration import cli
from orchestration.commands import eval_run


def test_ctrl_c_keeps_the_completions_and_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask_all(config: Any, located: Any, record: Any, progress: Any) -> None:
        record.add({"id": located[0].ask.id, "text": "<answer>B</answer>"})
        raise KeyboardInterrupt

    monkeypatch.setattr(eval_run, "ask_all", ask_all)
    (tmp_path / "clip.mp4").write_bytes(b"")
    data = make("mvbench", tmp_path / "data", tmp_path / "clip.mp4")
    argv = ["eval", "mvbench", "--model", ROOT / "assets/policy", "--data", data, "--out", tmp_path / "out"]
    for done in (1, 2):
        assert cli.main([*map(str, argv)]) == 75
        error = capsys.readouterr().err
        assert f"ser: Ctrl-C; completions in {tmp_path / 'out'}: {done}; the same command goes on from there\n" in error
        assert error.count("\n") == 1
