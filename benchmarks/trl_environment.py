"""A separate virtual environment for TRL. It sees the packages of this project's environment, so that torch,
transformers and accelerate are the same, and adds TRL and its other requirements, pinned.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from benchmarks.turns import Turns

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "runs/benchmarks/trl-env"
# TRL and its requirements that are not in requirements/cpu.lock.
PACKAGES = ("trl==1.16.0", "datasets==5.2.0", "multiprocess==0.70.19", "pandas==3.1.1", "pyarrow==26.0.1")


def trl_python(folder: Path = FOLDER) -> Path:
    """The environment's Python. Creates the environment, which takes a minute, unless it is complete."""
    python, stamp = folder / "bin/python", folder / "packages.txt"
    ours = sysconfig.get_paths()["purelib"]
    wanted = "\n".join([*PACKAGES, ours])
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"creating {folder} with {PACKAGES[0]}", file=sys.stderr)
    venv.create(folder, clear=True)
    site_packages = sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
    # addsitedir instead of a plain path: it also runs our .pth files, one of which makes torchvision importable.
    Path(site_packages, "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", *PACKAGES]
    subprocess.run(pip, check=True, stdout=sys.stderr)
    stamp.write_text(wanted, encoding="utf-8")
    return python


def trl_turns(task: Path, model: Path, *, threads: int, train_vision: bool) -> Turns:
    """Start benchmarks/learner_trl.py."""
    script = [str(trl_python()), str(ROOT / "benchmarks/learner_trl.py"), str(task), str(model)]
    script += [f"--threads={threads}", *["--train-vision"] * train_vision]
    return Turns(script, os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)})


if __name__ == "__main__":
    print(trl_python())
