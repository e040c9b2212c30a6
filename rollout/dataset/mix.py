"""Mixes several dataset files into one endless sequence of draws, for `ser train` and `ser sft`.

Guarantees: draw n depends only on the seed, n, the files and their weights, so a run that knows its n resumes exactly;
each sample of a file is drawn once per epoch of that file, in a new order in each epoch; among any n consecutive draws,
each file has its share to within a few draws, so a step's batch is mixed like the whole.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import numpy as np

from evidence.config_checks import require_above_zero
from evidence.errors import BadInput
from evidence.types import Sample
from rollout.dataset.formats import named
from rollout.dataset.read import read_dataset

T = TypeVar("T")

# Multiples of the golden ratio modulo 1 fill [0, 1) more evenly than those of any other number.
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class DataFile:
    """A dataset file and filters on its samples. A config may give only the path.

    path: the file. format: null detects it from the keys.
    media_root: folder below which the media are; null is the file's own folder (V-STaR: its subfolder `videos`).
    follow_links: whether media may be links to files outside the media root, as in the cache of a hub.
    tasks, sources: keep only these, if any are given.
    max_duration: keep only videos of at most this many seconds, according to the data.
    """

    SHORT: ClassVar[str] = "path"

    path: str
    format: str | None = None
    media_root: str | None = None
    follow_links: bool = True
    tasks: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    max_duration: float | None = None

    def __post_init__(self) -> None:
        if self.format is not None:
            named(self.format)

    def read(self) -> list[Sample]:
        """The samples that pass the filters, in the file's order. Raises BadInput, also if none passes."""
        samples = read_dataset(self.path, self.format, self.media_root, self.follow_links)
        for name, wanted in (("task", self.tasks), ("source", self.sources)):
            present = Counter(getattr(sample, name) for sample in samples)
            missing = [value for value in wanted if value not in present]
            if missing:
                raise BadInput(
                    f"{self.path}: no sample of the {name} {missing[0]!r}; it has {', '.join(map(repr, present))}"
                )
            samples = [sample for sample in samples if not wanted or getattr(sample, name) in wanted]
        if self.max_duration is not None:
            samples = [sample for sample in samples if self._duration(sample) <= self.max_duration]
        if not samples:
            raise BadInput(f"{self.path}: no sample passes its filters; loosen them")
        return samples

    def _duration(self, sample: Sample) -> float:
        if sample.duration is None:
            raise BadInput(f"{self.path}: max_duration is set, but sample {sample.id} has no duration; remove it")
        return sample.duration

    @property
    def absolute(self) -> dict[str, str | None]:
        """The paths in absolute form, for another process."""
        root = self.media_root and str(Path(self.media_root).absolute())
        return {"path": str(Path(self.path).absolute()), "media_root": root}


@dataclass(frozen=True)
class DataShare(DataFile):
    """A dataset file in a mixture. weight: its share of the draws, relative to the other files' weights."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_above_zero(self, "weight")


class Mixture(Generic[T]):
    """Endless sequence of draws, `mixture[0]`, `mixture[1]` …, from the items of `parts` (none empty) by `weights`."""

    def __init__(self, parts: Sequence[Sequence[T]], weights: Sequence[float], seed: int):
        self.parts, self.seed = parts, seed
        self._bounds = np.cumsum(weights)[:-1] / np.sum(weights)
        self._part = self._turn = np.empty(0, np.int64)
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    @property
    def items(self) -> Iterator[T]:
        """All items once, part by part."""
        return chain(*self.parts)

    def __getitem__(self, n: int) -> T:
        part, turn = self._place(n)
        items = self.parts[part]
        epoch, at = divmod(turn, len(items))
        return items[self._order(part, epoch)[at]]

    def _place(self, n: int) -> tuple[int, int]:
        """(part of draw n, number of earlier draws from that part)."""
        if n >= len(self._part):
            draws = np.arange(1 << max(10, n.bit_length()))
            self._part = np.searchsorted(self._bounds, draws * GOLDEN % 1, side="right")
            self._turn = np.empty_like(self._part)
            for part in range(len(self.parts)):
                from_part = self._part == part
                self._turn[from_part] = np.arange(from_part.sum())
        return int(self._part[n]), int(self._turn[n])

    def _order(self, part: int, epoch: int) -> np.ndarray:
        if self._orders.get(part, (-1,))[0] != epoch:
            order = np.random.default_rng([self.seed, epoch, part]).permutation(len(self.parts[part]))
            self._orders[part] = (epoch, order)
        return self._orders[part][1]
