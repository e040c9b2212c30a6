"""Settings of the decoding of media files: decoder, processes, their limits, and the disk cache."""

from __future__ import annotations

from dataclasses import dataclass

from evidence.config_checks import require_above_zero, require_least, require_one_of

DECODERS = ("decord", "pyav")


@dataclass(frozen=True)
class FramesConfig:
    """How media files are decoded.

    decoder: decord or pyav, the one to try first; files that it cannot read are tried with the other.
    workers: files decoded at once, each in its own process. worker_gib: memory of such a process. timeout_s: limit for
        one file.
    cache_dir: folder of the disk cache of frames, shared by runs; empty for no cache. cache_gib: its limit.
    """

    decoder: str = "decord"
    workers: int = 2
    worker_gib: float = 4.0
    timeout_s: float = 60.0
    cache_dir: str = ""
    cache_gib: float = 20.0

    def __post_init__(self) -> None:
        require_one_of(self, DECODERS, "decoder")
        require_least(self, 1, "workers")
        require_above_zero(self, "worker_gib", "timeout_s", "cache_gib")

    @property
    def worker_bytes(self) -> int:
        return int(self.worker_gib * 2**30)
