"""Files that can grow no further, as on a disk that is full."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def room(size: int) -> Iterator[None]:
    """Files of this process can hold `size` bytes during the block; a write above it is done in part, and then fails
    with EFBIG. A block, never a fixture: pytest reports a test before it ends the test's fixtures, and its own output
    may be a longer file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
