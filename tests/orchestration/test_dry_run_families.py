"""A dry run of a recipe of each family, with real engines and ranks. The first has the other family as its referee's
engine; the second an endpoint, and an adapter, as on one GPU."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import endpoint
import pytest

from rollout.dataset.shapes import make_shapes

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SHORT = "sampling.max_tokens=16", "contract.frames=4", "eval.samples=0"


def dry_run(recipe: str, world: Path, run_dir: Path, *more: str) -> subprocess.CompletedProcess[str]:
    data = f"data.train={world}/train.json", f"data.heldout={world}/test.json"
    command = [sys.executable, "-m", "orchestration", "train", f"configs/experiment/gpu/{recipe}.yaml", "dry_run=true"]
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.run(
        [*command, f"run_dir={run_dir}", *data, *SHORT, *more],
        cwd=ROOT,
        timeout=400,
        env=env,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "shapes"
    make_shapes(folder, train=4, val=0, test=1, questions=1, workers=1)
    return folder


def check(done: subprocess.CompletedProcess[str], folder: Path, *lines: str) -> None:
    assert done.returncode == 0, done.stderr[-3000:]
    for line in (*lines, "dry run: the first step has ended; nothing is kept"):
        assert line in done.stdout
    assert "step 1/1" in done.stdout
    assert list(folder.iterdir()) == [], "neither run_dir nor the tiny models are left"


def test_qwen2_5_vl_with_a_referee_of_the_other_family(world: Path, tmp_path: Path) -> None:
    done = dry_run("qwen2_5_vl_7b_8", world, tmp_path / "run")
    check(done, tmp_path, "dry run: learner.ranks = 2 (was 4)", "dry run: cluster.rollout_engines = 1 (was 3)")


def test_qwen3_vl_with_an_adapter_and_an_endpoint(world: Path, tmp_path: Path) -> None:
    async def run() -> subprocess.CompletedProcess[str]:
        async with endpoint.serving(endpoint.steady) as referee:
            source = f"model.referee={{model: judge, url: '{referee.url}'}}"
            return await asyncio.to_thread(dry_run, "qwen3_vl_8b_1", world, tmp_path / "run", source)

    check(asyncio.run(run()), tmp_path, "dry run: cluster.colocated = False (was True)")
