"""The layout's rules: what each folder may import, which modules are pure, and who may own object-store arrays.

Modules are found by walking the tree, so a new file is covered the day it is added. A module is pure, meaning that
importing it brings in none of torch, ray, vllm, transformers and deepspeed, directly or through other modules, if

- it is in one of `PURE_FOLDERS`, or
- its docstring claims it with the word `pure` ("Pure.", "pure functions on arrays", ...).
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Each folder may import itself and these. Any other package of this repository is forbidden.
MAY_IMPORT = {
    "evidence": (),
    "rollout": ("evidence",),
    "referee": ("evidence", "rollout.engine", "rollout.prompt", "rollout.frames"),
    "learner": ("evidence",),
    "evaluation": (
        "evidence",
        "rollout.dataset",
        "rollout.template",
        "referee.terms",
        "referee.reward",
        "referee.trust",
    ),
    "orchestration": ("evidence", "rollout", "referee", "learner", "evaluation"),
}
NOT_SHIPPED = ("tests", "benchmarks", "install", "tools")
EVIDENCE_LIBRARIES = {"numpy", "PIL", "xxhash"}
PURE_FOLDERS = (
    *("evidence", "evaluation", "learner/packing", "orchestration/planning"),
    *("referee/reward", "referee/terms", "referee/trust"),
)
# A floor, since a docstring that is rewritten can lose the word: these stay pure. New modules need no entry.
STAYS_PURE = {
    "learner.advantages",
    "learner.aggregation",
    "learner.algorithm",
    "learner.schedule",
    "learner.settings",
    "orchestration.loop.admission",
    "orchestration.loop.ledger",
    "orchestration.loop.rejections",
    "referee.service.backend",
    "referee.service.breaker",
    "referee.service.cache",
    "referee.service.service",
    "referee.service.sources",
    "referee.verification",
}
HEAVY = ("torch", "ray", "vllm", "transformers", "deepspeed")
ACTOR_FOLDERS = ("rollout", "referee", "learner")


def modules(root: Path) -> list[Path]:
    """All Python files of the shipped folders, relative to `root`."""
    return sorted(path.relative_to(root) for folder in MAY_IMPORT for path in (root / folder).rglob("*.py"))


def dotted(path: Path) -> str:
    """The module's name: rollout/frames/__init__.py is rollout.frames."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imports(root: Path, path: Path) -> set[str]:
    """Absolute names of all that the file imports, wherever the statement is, also in calls of `import_module`.

    `from a.b import c` is a.b.c, whether c is a module or not.
    """
    package = path.parent.parts  # what a relative import starts from, for a module and for an __init__ alike
    names = set()
    for node in ast.walk(ast.parse((root / path).read_text())):
        match node:
            case ast.Import():
                names |= {alias.name for alias in node.names}
            case ast.ImportFrom():
                base = package[: len(package) - node.level + 1] if node.level else ()
                parts = (*base, *([node.module] if node.module else []))
                names |= {".".join((*parts, alias.name)) for alias in node.names}
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                names.add(name)
    return names


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def may_import(folder: str, name: str) -> bool:
    top = name.partition(".")[0]
    if top in MAY_IMPORT or top in NOT_SHIPPED:
        return any(within(name, package) for package in (folder, *MAY_IMPORT[folder]))
    return folder != "evidence" or top in sys.stdlib_module_names or top in EVIDENCE_LIBRARIES


def forbidden_imports(root: Path) -> list[str]:
    """`importing module -> imported name` for each import that the table forbids."""
    return [
        f"{dotted(path)} -> {name}"
        for path in modules(root)
        for name in sorted(imports(root, path))
        if not may_import(path.parts[0], name)
    ]


def is_pure(root: Path, path: Path) -> bool:
    if any(path.is_relative_to(folder) for folder in PURE_FOLDERS):
        return True
    docstring = ast.get_docstring(ast.parse((root / path).read_text())) or ""
    return re.search(r"\bpure\b", docstring, re.IGNORECASE) is not None


def pure_modules(root: Path) -> list[Path]:
    return [path for path in modules(root) if is_pure(root, path)]


def heavy_imports_written_in_pure_modules(root: Path) -> list[str]:
    """`module -> library` for each import of a heavy library, also where it would run only inside a function."""
    return [
        f"{dotted(path)} -> {name}"
        for path in pure_modules(root)
        for name in sorted(imports(root, path))
        if any(within(name, library) for library in HEAVY)
    ]


# Blames a library on the module that brought it in first: the interpreter imports each only once.
IMPORT_ALL = """
import importlib, json, sys
modules, heavy = json.loads(sys.argv[1])
loaded = []
for module in modules:
    importlib.import_module(module)
    loaded += [[module, name] for name in heavy if name in sys.modules and name not in [n for _, n in loaded]]
print(json.dumps(loaded))
"""


def heavy_imports_loaded_by_pure_modules(root: Path) -> list[str]:
    """`module -> library` for each heavy library in sys.modules after importing all pure modules, transitively."""
    arguments = json.dumps([[dotted(path) for path in pure_modules(root)], HEAVY])
    command = [sys.executable, "-c", IMPORT_ALL, arguments]
    finished = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    return [f"{module} -> {library}" for module, library in json.loads(finished.stdout.splitlines()[-1])]


def puts_in_actors(root: Path) -> list[str]:
    """Modules that run in an actor, which may die, and call `ray.put`: the arrays would die with it."""
    return [
        dotted(path)
        for path in modules(root)
        if path.parts[0] in ACTOR_FOLDERS or "ray.remote" in (root / path).read_text()
        if "ray.put" in imports(root, path) or re.search(r"\bray\.put\b", (root / path).read_text())
    ]


def test_folders_import_only_what_the_table_allows():
    assert forbidden_imports(ROOT) == []


def test_every_folder_with_python_files_is_known():
    folders = {path.parent.name for path in ROOT.glob("[!.]*/*.py")}
    assert folders <= {*MAY_IMPORT, *NOT_SHIPPED}


def test_pure_modules_import_nothing_heavy():
    assert heavy_imports_written_in_pure_modules(ROOT) == []
    assert heavy_imports_loaded_by_pure_modules(ROOT) == []


def test_no_pure_module_has_lost_its_claim():
    assert {dotted(path) for path in pure_modules(ROOT)} >= STAYS_PURE


def test_arrays_are_returned_by_actors_not_put():
    assert puts_in_actors(ROOT) == [], "return the array instead: its caller then owns it"


def plant(root: Path, files: dict[str, str]) -> None:
    for path, source in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if "/" in path:  # without it, a package of that name elsewhere on sys.path would win
            (root / path).parent.joinpath("__init__.py").touch()
        (root / path).write_text(source)


FORBIDDEN = {
    "plain": ("referee/terms/form.py", "import learner.packing", "learner.packing"),
    "from": (
        "learner/settings.py",
        "from orchestration.settings import TrainConfig",
        "orchestration.settings.TrainConfig",
    ),
    "module from a package": ("referee/actor.py", "from rollout import actor", "rollout.actor"),
    "relative": ("evidence/types.py", "from ..rollout import engine", "rollout.engine"),
    "inside a function": ("rollout/engine.py", "def start():\n    import referee", "referee"),
    "for types only": (
        "learner/actor.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import rollout.engine",
        "rollout.engine",
    ),
    "by name": ("evaluation/vstar.py", "import importlib\nimportlib.import_module('learner.losses')", "learner.losses"),
    "library in evidence": ("evidence/spaces.py", "import scipy.stats", "scipy.stats"),
    "similar name": ("referee/actor.py", "import rollout.engine_options", "rollout.engine_options"),
    "not shipped": ("orchestration/train.py", "from benchmarks.flops import flops", "benchmarks.flops.flops"),
}


@pytest.mark.parametrize(("path", "source", "imported"), FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_forbidden_import_is_found(tmp_path, path, source, imported):
    plant(tmp_path, {path: source})
    assert forbidden_imports(tmp_path) == [f"{dotted(Path(path))} -> {imported}"]


def test_allowed_imports_pass(tmp_path):
    allowed = {
        "evidence/drawing.py": "import json, numpy\nfrom PIL import Image\nfrom .geometry import clip",
        "rollout/frames/__init__.py": "from .store import FrameStore\nimport ray",
        "referee/actor.py": "import rollout.engine\nfrom rollout import prompt\nfrom rollout.frames.store import x",
        "evaluation/heldout.py": "from referee.reward.ser import score",
        "orchestration/train.py": "import learner, referee, evaluation",
    }
    plant(tmp_path, allowed)
    assert forbidden_imports(tmp_path) == []


IMPURE = {
    "by its docstring": ("learner/schedule.py", '"""Schedules. Pure."""\n'),
    "by its folder": ("evaluation/election.py", ""),
}


@pytest.mark.parametrize(("path", "docstring"), IMPURE.values(), ids=IMPURE)
def test_a_heavy_import_of_a_pure_module_is_found(tmp_path, path, docstring):
    plant(tmp_path, {path: f"{docstring}def f():\n    from torch import nn"})
    assert heavy_imports_written_in_pure_modules(tmp_path) == [f"{dotted(Path(path))} -> torch.nn"]


@pytest.mark.parametrize(("path", "docstring"), IMPURE.values(), ids=IMPURE)
def test_a_heavy_import_through_another_module_is_found(tmp_path, path, docstring):
    heavy = {"torch.py": "", "rollout/helper.py": "import torch"}  # an empty torch: found before the installed one
    plant(tmp_path, heavy | {path: f"{docstring}import rollout.helper"})
    assert heavy_imports_written_in_pure_modules(tmp_path) == []
    assert heavy_imports_loaded_by_pure_modules(tmp_path) == [f"{dotted(Path(path))} -> torch"]


def test_a_module_without_the_claim_may_import_anything(tmp_path):
    plant(
        tmp_path,
        {"learner/actor.py": '"""One rank of the learner."""\nimport torch', "torch.py": ""},
    )
    assert pure_modules(tmp_path) == []
    assert heavy_imports_loaded_by_pure_modules(tmp_path) == []


PUTS = {
    "in a folder of actors": ("rollout/frames/store.py", "import ray\nref = ray.put(1)"),
    "in an actor elsewhere": ("orchestration/loop/log.py", "import ray\n@ray.remote\ndef f():\n    ray.put(1)"),
    "under its own name": ("learner/actor.py", "from ray import put"),
}


@pytest.mark.parametrize(("path", "source"), PUTS.values(), ids=PUTS)
def test_a_put_in_an_actor_is_found(tmp_path, path, source):
    plant(tmp_path, {path: source})
    assert puts_in_actors(tmp_path) == [dotted(Path(path))]


def test_the_driver_may_put(tmp_path):
    plant(tmp_path, {"orchestration/train.py": "import ray\nref = ray.put(1)"})
    assert puts_in_actors(tmp_path) == []
