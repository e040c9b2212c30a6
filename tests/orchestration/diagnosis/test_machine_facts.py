"""Faults that are planted in the environment of this machine are seen."""

from __future__ import annotations

import resource
import sysconfig
from pathlib import Path

import pytest

from orchestration.diagnosis import machine_facts
from orchestration.diagnosis.machine_facts import MachineFacts, cgroup_room, read_machine


def facts() -> MachineFacts:
    return read_machine(0.01, ".")


def test_this_machine_can_run_the_tests() -> None:
    seen = facts()
    assert (seen.store, seen.folders, seen.decoders, seen.cuda_packages) == ("", (), "", ())
    assert None not in seen.packages.values()


@pytest.mark.parametrize(("hook", "seen"), [("json", ("torchaudio",)), ("no_such_hook", ("torchaudio", "torchvision"))])
def test_cuda_builds_beside_a_torch_for_the_cpu_are_seen(hook: str, seen: tuple[str, ...], monkeypatch) -> None:
    versions = {"torch": "2.13.0+cpu", "torchaudio": "2.11.0", "torchcodec": "0.14.0+cpu", "torchvision": "0.28.0"}
    monkeypatch.setattr(machine_facts, "version", versions.get)
    monkeypatch.setattr(machine_facts, "HOOK", hook)
    assert facts().cuda_packages == seen


def test_a_store_that_does_not_fit_is_seen() -> None:
    assert "object_store_gib = 100000" in read_machine(100_000, "/not/there/yet").store


def test_a_low_limit_of_open_files_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 512 if kind == resource.RLIMIT_NOFILE else -1))
    assert facts().files == 512


def test_a_missing_or_broken_compiler_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    assert facts().compiler == ""
    monkeypatch.setenv("CC", "/not/there/cc")
    assert facts().compiler == "CC = /not/there/cc: No such file or directory"
    (tmp_path / "cc").write_text("#!/bin/sh\necho cannot find -lc >&2; exit 1\n")
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("CC", str(tmp_path / "cc"))
    assert facts().compiler == "cannot find -lc"
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    assert facts().compiler == "Python's headers are missing"
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert facts().compiler == "no gcc or clang"


def test_decoders_that_do_not_load_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_facts, "DECODE", "raise ImportError('libGL.so.1: cannot open')")
    assert facts().decoders == "ImportError: libGL.so.1: cannot open"


def test_a_key_for_wandb_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not facts().wandb_key
    (tmp_path / "netrc").write_text("machine wandb.example login user password k\n")
    (tmp_path / "netrc").chmod(0o600)
    assert not facts().wandb_key
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example:8080/")
    assert facts().wandb_key
    monkeypatch.delenv("WANDB_BASE_URL")
    monkeypatch.setenv("WANDB_API_KEY", "k")
    assert facts().wandb_key


def test_the_limits_of_a_container_count(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("400\n")
    (tmp_path / "pids.max").write_text("max\n")
    (tmp_path / "pids.current").write_text("10\n")
    assert cgroup_room("memory", tmp_path) == 600
    assert cgroup_room("pids", tmp_path) is None
