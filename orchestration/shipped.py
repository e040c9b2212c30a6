"""The files that come with SER, in a checkout and in an installed wheel: configs/ and the embedded models of assets/.
Pure.

setup.py puts these folders into the wheel as `ser_files`, a name that no other package uses.
"""

from __future__ import annotations

import os
from pathlib import Path

from evidence.errors import BadInput

_ROOT = Path(__file__).resolve().parents[1]
_WHEEL = _ROOT / "ser_files"
SHIPPED = _WHEEL if _WHEEL.is_dir() else _ROOT
CONFIGS = SHIPPED / "configs"


def asset(name: str) -> str:
    """The folder of an embedded model, for `${asset:NAME}` in a config: relative to the working directory if it lies
    below, so that the configs of runs in different checkouts are equal. Raises BadInput."""
    folder = SHIPPED / "assets" / name
    if not (folder / "config.json").is_file():
        known = sorted(path.parent.name for path in folder.parent.glob("*/config.json"))
        raise BadInput(f"${{asset:{name}}}: no such embedded model; there are: {', '.join(known)}")
    here = Path.cwd().resolve()
    return os.path.relpath(folder, here) if folder.is_relative_to(here) else str(folder)
