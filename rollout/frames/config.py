"""Settings of decoding: which decoder, in how many processes, within which limits, cached where."""

from __future__ import annotations

from dataclasses import dataclass

from evidence.config_checks import require_above_zero, require_least, require_one_of

DECODERS = ("decord", "pyav")


@dataclass(frozen=True)
class FramesConfig:
    """How media files are decoded.

    decoder: decord or pyav, tried first; the other one reads what it cannot.
    workers: files decoded at once, each in a process of its own with `worker_gib` of memory and `timeout_s` for a file.
    cache_dir: a folder that keeps decoded frames from run to run, up to cache_gib; none if empty.
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
