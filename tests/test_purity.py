"""The rules of import and ownership that hold the house up (design.md, Rooms and Ownership)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("evidence", "rollout", "referee", "learner", "orchestration", "evaluation")
PURE = sorted(f"evidence.{path.stem}" for path in (ROOT / "evidence").glob("*.py") if path.stem != "__init__")
PURE += [
    f"referee.{package}.{path.stem}"
    for package in ("reward", "terms", "trust")
    for path in (ROOT / "referee" / package).glob("[!_]*.py")
]
SERVICE = ("backend", "breaker", "cache", "ensemble", "service", "sources")
PURE += [f"referee.service.{name}" for name in SERVICE]
PURE += [f"learner.packing.{path.stem}" for path in (ROOT / "learner" / "packing").glob("[!_]*.py")]
PURE += [f"learner.{name}" for name in ("advantages", "aggregation", "algorithm", "settings")]
PURE += ["orchestration.loop.ledger", "orchestration.loop.admission", "orchestration.loop.rejections"]
HEAVY = ("torch", "ray", "vllm")


@pytest.mark.parametrize("module", PURE)
def test_pure_module_imports_nothing_heavy(module):
    code = f"import sys, {module}; sys.exit(','.join(m for m in {HEAVY} if m in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{module} brings in {done.stderr}"


def runs_in_an_actor(path: Path) -> bool:
    return path.relative_to(ROOT).parts[0] in ("rollout", "referee", "learner") or "@ray.remote" in path.read_text()


def test_no_actor_puts_what_its_death_would_take_along():
    actors = [path for room in ROOMS for path in (ROOT / room).rglob("*.py") if runs_in_an_actor(path)]
    assert any(path.name == "actor.py" for path in actors)
    guilty = [path.name for path in actors if "ray.put(" in path.read_text()]
    assert not guilty, "return the array instead: its caller then owns it"
