"""Shared fixtures of the command line's tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestration import cli


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs `ser …`, asserts that it is refused, and returns its one line."""
    import ray

    def start(*args: object, **kwargs: object) -> None:
        raise AssertionError("Ray was started despite bad input")

    monkeypatch.setattr(ray, "init", start)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def run(*argv: object) -> str:
        capsys.readouterr()
        assert cli.main([str(part) for part in argv]) == 2
        error = capsys.readouterr().err
        assert error.startswith("ser: ")
        assert error.count("\n") == 1
        assert error.endswith("\n")
        return error

    return run
