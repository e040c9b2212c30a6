"""Which files clients may name: those in one folder, after all links and `..` are resolved. Pure.

Guarantees: no path leads out of the root, and a refusal does not tell whether a file outside exists.
"""

from __future__ import annotations

import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestration.serving.chat import Refused


def resolve(url: str, root: Path, most_gib: float) -> str:
    """The path of the file that a client names by `file:///…` or by a path, relative to `root` or absolute.

    Raises Refused: 400 for another kind of URL, 403 outside the root, 404 for a missing file, 413 for one of more than
    `most_gib`. `root`: resolved.
    """
    path = _path(url)
    try:
        resolved = (root / path).resolve()
    except (OSError, RuntimeError, ValueError):  # a circle of links, a name that is too long, a NUL
        raise _missing(url) from None
    if not resolved.is_relative_to(root):
        raise Refused(403, f"{url:.200}: is outside the served folder (--root)", "messages", "outside_root")
    try:
        status = resolved.stat()
    except OSError:
        raise _missing(url) from None
    if not stat.S_ISREG(status.st_mode):
        raise _missing(url)
    if status.st_size > most_gib * 2**30:
        gib = status.st_size / 2**30
        raise Refused(
            413, f"{url:.200}: has {gib:.1f} GiB; at most {most_gib:g} are read", "messages", "file_too_large"
        )
    return str(resolved)


def _path(url: str) -> str:
    """The path that a URL names. Raises Refused."""
    try:
        scheme, host, path, query, fragment = urlsplit(url)
    except ValueError:
        raise Refused(400, f"{url:.200}: is no URL", "messages") from None
    if not scheme:
        return url
    if scheme != "file" or host not in ("", "localhost") or query or fragment:
        raise Refused(400, f"{url:.200}: must be file:///… or a path; nothing is fetched from elsewhere", "messages")
    return unquote(path)


def _missing(url: str) -> Refused:
    return Refused(404, f"{url:.200}: no such file in the served folder", "messages", "file_not_found")
