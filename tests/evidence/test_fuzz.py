"""A bounded run of the fuzz target with a fixed seed and corpus."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.mark.slow
def test_the_fuzzer_finds_nothing_in_twenty_seconds(tmp_path: Path) -> None:
    new_inputs = tmp_path / "new"
    new_inputs.mkdir()
    fuzzer = subprocess.run(
        [
            sys.executable,
            HERE / "fuzz_grammar.py",
            new_inputs,
            HERE / "corpus",
            f"-dict={HERE / 'grammar.dict'}",
            "-seed=7",
            "-runs=50000",
            "-max_total_time=20",
            "-max_len=512",
            "-timeout=5",
            f"-artifact_prefix={tmp_path}/",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert fuzzer.returncode == 0, fuzzer.stdout[-2000:] + fuzzer.stderr[-4000:]
    runs = re.search(r"Done (\d+) runs", fuzzer.stderr)
    assert runs
    assert int(runs[1]) > 1000, fuzzer.stderr[-2000:]
    assert list(new_inputs.iterdir()), "no new path was reached: the parser was not instrumented"
