"""The process that waits for a driver's end and then ends what is left of its local Ray.

    python -m orchestration.supervision.session_watcher FOLDER

It has a process group of its own, so signals to the driver's do not reach it, and it ignores those that ask to end: it
ends within half a minute of the driver. Meanwhile it notes which processes the driver's Ray starts and which shared
memory they use: after their death nothing else tells whose it was.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import time
from pathlib import Path

from orchestration.leftovers import extensions_folder
from orchestration.supervision.local_session import LocalSession, Seen
from orchestration.supervision.process_table import process
from orchestration.supervision.session_end import end_session

# Seconds between two looks: short at first, while Ray starts its processes.
FIRST_S, MOST_S = 0.5, 5.0
POLL_S = 0.25


def watch(folder: Path) -> None:
    """Wait for the end of the driver of the session in `folder`, then end the session."""
    session, extensions, own = LocalSession.read(folder), extensions_folder(), process(os.getpid())
    assert own is not None
    # systemd-tmpfiles spares a folder that is locked, however old its files are.
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_SH)
    seen, pause_s = Seen(own), FIRST_S
    session.write_seen(seen)
    while session.driver_runs:
        before, seen = seen, session.look(seen, extensions)
        if seen != before:
            session.write_seen(seen)
        until = time.monotonic() + pause_s
        while session.driver_runs and time.monotonic() < until:
            time.sleep(POLL_S)
        pause_s = min(2 * pause_s, MOST_S)
    with contextlib.suppress(OSError, ValueError):  # somebody has emptied the folder: Ray's logs remain unknown
        session = LocalSession.read(folder)
    end_session(session, seen, extensions)


if __name__ == "__main__":
    os.chdir("/")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watch(Path(sys.argv[1]))
