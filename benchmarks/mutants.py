"""Mutation testing: how many small faults in a pure module do the tests that mirror it notice?

`make mutants` runs mutmut over the modules of [tool.mutants] in pyproject.toml, each with the tests listed there and
without the slow ones; `make mutants modules="evidence/geometry.py learner/losses/kl.py"` over some of them. It takes
about a second for a mutant. Prints one JSON line for each module, with each survivor's change, and one for all.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
TREE = ROOT / ".mutants"  # a copy of the sources, of which mutmut makes its own
FOLDERS = ("evidence", "rollout", "referee", "learner", "evaluation", "orchestration")
# What tests read besides the code.
BESIDE = ("configs", "assets", "benchmarks", "docs", "install", "README.md")


def main(chosen: list[str]) -> None:
    tests_of = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mutants"]
    unknown = [module for module in chosen if module not in tests_of]
    if unknown:
        sys.exit(f"mutants: {', '.join(unknown)}: not listed in [tool.mutants] of pyproject.toml")
    killed = mutants = 0
    for module in chosen or tests_of:
        survivors, count = survivors_of(module, tests_of[module])
        killed, mutants = killed + count - len(survivors), mutants + count
        print(json.dumps({"module": module, "mutants": count, "survivors": survivors}), flush=True)
    print(json.dumps({"mutants": mutants, "killed": killed, "share": round(killed / max(1, mutants), 3)}))


def survivors_of(module: str, tests: list[str]) -> tuple[dict[str, list[str]], int]:
    """(mutants of a module that `tests` do not notice, with the lines that they change; the number of its mutants).
    Exits if mutmut fails."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.stats import status_by_exit_code

    copy_sources()
    settings = {
        "source_paths": FOLDERS,
        "only_mutate": [module],
        "also_copy": BESIDE,
        "pytest_add_cli_args_test_selection": tests,
        "pytest_add_cli_args": ("-m", "not slow", "-p", "no:cacheprovider"),
    }
    lines = [f"{key} =\n    " + "\n    ".join(values) for key, values in settings.items()]
    (TREE / "setup.cfg").write_text("\n".join(["[mutmut]", *lines]) + "\n", encoding="utf-8")
    with (TREE / "mutmut.log").open("w", encoding="utf-8") as log:
        # With more threads, torch's pool would not survive the forks of mutmut.
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", "mutmut", "run"], cwd=TREE, env=environment, stdout=log, stderr=log)
    os.chdir(TREE)  # where mutmut looks for its files
    meta = Path("mutants", f"{module}.meta")
    results = json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"] if meta.exists() else {}
    if not results or None in results.values():
        sys.exit(f"mutants: {module}: mutmut did not finish; see {TREE / 'mutmut.log'}")
    unnoticed = [name for name, code in results.items() if status_by_exit_code[code] not in ("killed", "timeout")]
    return {name: changed_lines(get_diff_for_mutant(name, path=module)) for name in unnoticed}, len(results)


def changed_lines(diff: str) -> list[str]:
    return [line for line in diff.splitlines() if line[:1] in ("-", "+") and line[:3] not in ("---", "+++")]


def copy_sources() -> None:
    """A fresh copy of the files that git tracks, as they are in the working tree."""
    if TREE.exists():
        shutil.rmtree(TREE)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (TREE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, TREE / name)


if __name__ == "__main__":
    main(sys.argv[1:])
