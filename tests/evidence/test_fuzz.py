"""A bounded run of the fuzz target, from the same seed and the same corpus each time."""

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
    found = tmp_path / "found"
    found.mkdir()
    done = subprocess.run(
        [
            sys.executable,
            HERE / "fuzz_grammar.py",
            found,
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
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    runs = re.search(r"Done (\d+) runs", done.stderr)
    assert runs
    assert int(runs[1]) > 1000, done.stderr[-2000:]
    assert list(found.iterdir()), "no new path was found: the parser was not instrumented"
