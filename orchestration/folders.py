"""Folders for output: whether one can be written to, found out before any work. Needs no heavy library."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from evidence.errors import BadInput


def require_folder(key: str, name: str | Path) -> Path:
    """`name` as an absolute path at which a folder exists or can be created. Raises BadInput."""
    path = Path(name).absolute()
    try:
        existing = next(p for p in (path, *path.parents) if p.exists())
        if not existing.is_dir():
            raise BadInput(f"{key} = {name}: {existing} is a file; name a folder that can be created")
        # Only an attempt shows what a file system allows: permissions do not tell, least of all to root.
        with TemporaryDirectory(prefix=".ser-", dir=existing) as trial:
            (Path(trial) / path.relative_to(existing)).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise BadInput(f"{key} = {name}: cannot be written to ({reason}); name a folder that can be created") from None
    return path
