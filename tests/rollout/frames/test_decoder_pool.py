"""Decoders that hang, die or run out of memory fail on one file only, and are replaced."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from small_clips import Run, clip, stop

from evidence.errors import UnreadableMedia
from rollout.frames import decoder_pool
from rollout.frames.decoder_pool import DecoderPool
from rollout.frames.decoding import examine


@ray.remote(num_cpus=0)
class Hanging:
    """A decoder that hangs on one file, dies on another, and runs out of memory on a third."""

    def ready(self) -> None:
        import rollout.frames.decoding  # noqa: F401  so that the import takes no time later

    def examine(self, path: str) -> Any:
        if path == "hangs":
            time.sleep(1000)
        if path == "kills":
            os._exit(1)
        if path == "bloats":
            raise MemoryError
        return examine(path)


def test_a_decoder_that_died_while_idle_is_not_blamed_on_the_next_file(
    ray_cluster: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(decoder_pool.Decoder, "remote", lambda *_: started.append(Hanging.remote()) or started[-1])
    good = clip(tmp_path / "a.mp4", 0)
    pool = DecoderPool(1, timeout_s=60.0, memory_bytes=0)

    async def loop() -> None:
        await pool.examine(good)
        ray.kill(started[0])
        with contextlib.suppress(ray.exceptions.RayActorError):
            while True:  # killing takes a moment, in which it still responds
                await started[0].ready.remote()
        assert (await pool.examine(good)).path == good
        assert (pool.deaths, len(started)) == (1, 2)
        stop(pool)

    run(loop())


@ray.remote(num_cpus=0)
class Unstartable:
    def ready(self) -> None:
        time.sleep(1000)


def test_a_decoder_that_does_not_start_is_the_reason(
    ray_cluster: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_pool.Decoder, "remote", lambda *_: Unstartable.remote())
    monkeypatch.setattr(decoder_pool, "START_TIMEOUT_S", 1.0)
    pool = DecoderPool(1, timeout_s=60, memory_bytes=0)
    with pytest.raises(UnreadableMedia, match="no decoder could be started"):
        run(pool.examine(clip(tmp_path / "a.mp4", 0)))
    assert pool.deaths == 1


@ray.remote(num_cpus=0)
class Stillborn:
    def ready(self) -> None:
        os._exit(1)


def test_decoders_that_die_at_start_are_retried_a_few_times(
    ray_cluster: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_pool.Decoder, "remote", lambda *_: Stillborn.remote())
    pool = DecoderPool(1, timeout_s=60, memory_bytes=0)
    with pytest.raises(UnreadableMedia, match="no decoder could be started"):
        run(pool.examine(clip(tmp_path / "a.mp4", 0)))
    assert pool.deaths == decoder_pool.START_TRIES


def test_a_decoder_that_hangs_or_dies_is_replaced(
    ray_cluster: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_pool.Decoder, "remote", lambda *_: Hanging.remote())
    good = clip(tmp_path / "a.mp4", 0)
    pool = DecoderPool(1, timeout_s=3.0, memory_bytes=0)

    async def loop() -> None:
        with pytest.raises(UnreadableMedia, match="more than 3 s"):
            await pool.examine("hangs")
        pool.timeout_s = 60.0  # the others end by themselves
        with pytest.raises(UnreadableMedia, match="died"):
            await pool.examine("kills")
        with pytest.raises(UnreadableMedia, match="out of memory"):
            await pool.examine("bloats")
        assert (await pool.examine(good)).path == good
        assert pool.deaths == 4, "the file that kills was given a second process"
        given_up = asyncio.create_task(pool.examine("hangs"))
        await asyncio.sleep(0.3)
        given_up.cancel()
        assert (await pool.examine(good)).path == good
        stop(pool)

    run(loop())


class FakeProcess:
    """A decoder, without a process. `dies`: in its first call. `silent`: it responds only once, as it starts."""

    def __init__(self, dies: bool = False, silent: bool = False):
        self.dies, self.silent, self.killed = dies, silent, False
        self.ready = SimpleNamespace(remote=self._respond)
        self.examine = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._examine))
        self._asked = 0

    async def _respond(self) -> None:
        self._asked += 1
        if self.silent and self._asked > 1:
            await asyncio.Event().wait()

    async def _examine(self, path: str) -> str:
        if self.dies:
            raise ray.exceptions.RayActorError
        return path


def test_a_process_that_is_killed_or_falls_silent_costs_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    killed, falls_silent, works = processes = [FakeProcess(dies=True), FakeProcess(silent=True), FakeProcess()]
    waiting = iter(processes)
    monkeypatch.setattr(decoder_pool.Decoder, "remote", lambda *_: next(waiting))
    monkeypatch.setattr(decoder_pool.ray, "kill", lambda process: setattr(process, "killed", True))
    monkeypatch.setattr(decoder_pool, "START_TIMEOUT_S", 0.2)

    async def loop() -> None:
        pool = DecoderPool(1, timeout_s=60.0, memory_bytes=0)
        assert [await pool.examine("a"), await pool.examine("b")] == ["a", "b"]
        assert pool.deaths == 2

    asyncio.run(loop())
    assert (killed.killed, falls_silent.killed, works.killed) == (True, True, False)
