"""The announcements of parts that are awaited: one line on a terminal, a line at an interval elsewhere."""

from __future__ import annotations

import asyncio
import io
import re
import time

import pytest
from rich.console import Console

from orchestration.reporting.awaited_parts import AwaitedParts
from orchestration.reporting.awaiting import Announcer


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def until(condition: object, seconds: float = 10.0) -> None:
    """Wait until `condition()` holds; the assertion that follows fails if it never does."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:  # type: ignore[operator]
        time.sleep(0.01)


def test_the_line_names_each_part_with_its_own_duration() -> None:
    parts = AwaitedParts()
    engines = parts.begin("rollout engines", 100.0)
    parts.begin("referee", 130.0)
    assert parts.line(165.0) == "waiting for rollout engines (1:05), referee (0:35)"
    parts.end(engines)
    parts.begin("referee", 170.0)
    assert parts.line(3770.0) == "waiting for referee (1:00:40), referee (1:00:00)"
    assert len(parts) == 2


def test_elsewhere_a_line_is_added_at_each_interval_and_none_afterwards() -> None:
    log = io.StringIO()
    announcer = Announcer(Console(file=log, width=20), every_s=0.1)
    with announcer.awaiting("rollout engines"):
        with announcer.awaiting("referee"):
            until(lambda: log.getvalue().count("\n") >= 2)
        until(lambda: re.search(r"engines \(0:\d\d\)\n", log.getvalue()) is not None)
    both = r"(waiting for rollout engines \(0:\d\d\), referee \(0:\d\d\)\n){2,}"
    assert re.fullmatch(both + r"(waiting for rollout engines \(0:\d\d\)\n)+", log.getvalue())
    time.sleep(0.1)  # a line may be under way
    after = log.getvalue()
    time.sleep(0.25)
    assert log.getvalue() == after


def test_a_wait_shorter_than_the_interval_adds_nothing_but_several_short_ones_do() -> None:
    log = io.StringIO()
    announcer = Announcer(Console(file=log), every_s=0.3)
    with announcer.awaiting("Ray"):
        pass
    assert log.getvalue() == ""
    deadline = time.monotonic() + 10
    while not log.getvalue() and time.monotonic() < deadline:
        with announcer.awaiting("clip"):
            time.sleep(0.05)
    assert re.fullmatch(r"(waiting for clip \(0:0\d\)\n)+", log.getvalue())


def test_forced_colours_do_not_make_a_file_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    log = io.StringIO()
    with Announcer(Console(file=log), every_s=0.01).awaiting("Ray"):
        until(lambda: "\n" in log.getvalue())
    assert log.getvalue().startswith("waiting for Ray (0:00)\n")


def test_a_terminal_has_one_line_that_is_updated_and_removed() -> None:
    screen = Terminal()
    console = Console(file=screen, width=60, legacy_windows=False, _environ={"TERM": "xterm"})
    with Announcer(console).awaiting("rollout engines"):
        until(lambda: "(0:01)" in screen.getvalue())
    shown = screen.getvalue()
    assert "waiting for rollout engines (0:00)" in shown
    assert "waiting for rollout engines (0:01)" in shown
    update = shown.split("(0:00)")[1]
    assert update.startswith("\r\x1b[2K"), "the line is overwritten in place"
    assert shown.rstrip("\r").endswith("\x1b[1A\x1b[2K"), "nothing is left of it"


def test_the_part_is_no_longer_awaited_after_an_error() -> None:
    log = io.StringIO()
    announcer = Announcer(Console(file=log), every_s=0.05)

    async def start() -> None:
        with announcer.awaiting("referee"):
            raise TimeoutError

    with pytest.raises(TimeoutError):
        asyncio.run(start())
    with announcer.awaiting("learner ranks"):
        until(lambda: log.getvalue())
    assert "referee" not in log.getvalue()


class Closed(io.StringIO):
    """The terminal or file of a stderr that cannot be written any more."""

    def __init__(self, terminal: bool):
        super().__init__()
        self.terminal, self.refused = terminal, 0

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        self.refused += 1
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_stderr_that_cannot_be_written_ends_no_wait(terminal: bool) -> None:
    out = Closed(terminal)
    announcer = Announcer(Console(file=out, force_terminal=terminal), every_s=0.01)
    for _ in range(2):
        with announcer.awaiting("engines"):
            until(lambda: out.refused)
    assert out.refused
    assert announcer._parts.line(0.0) == "waiting for "
