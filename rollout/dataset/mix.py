"""Several dataset files as one endless order of draws, for `ser train` and `ser sft` alike.

Guarantees: draw n is a function of the seed, n, the files and their shares alone, so a run that knows its n resumes
exactly; of a file's samples each is drawn once before any is drawn again, in an order of its own each time round; of
any n draws in a row, each file has its share within a few draws, so a step's batch is mixed like the whole.
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

# Its multiples, modulo 1, fill [0, 1) more evenly than those of any other number.
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class DataFile:
    """A dataset file and what is taken of it. A config may give the path alone.

    format: null tells it from the keys. media_root: the folder below which its media lie; null is the file's own
    (V-STaR: `videos` in it).
    tasks, sources: only these samples, if any are named. max_duration: only videos of at most so many seconds, as the
    data says.
    """

    SHORT: ClassVar[str] = "path"

    path: str
    format: str | None = None
    media_root: str | None = None
    tasks: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    max_duration: float | None = None

    def __post_init__(self) -> None:
        if self.format is not None:
            named(self.format)

    def read(self) -> list[Sample]:
        """The samples that pass the filters, in the file's order. Raises BadInput, also if none does."""
        samples = read_dataset(self.path, self.format, self.media_root)
        for name, wanted in (("task", self.tasks), ("source", self.sources)):
            found = Counter(getattr(sample, name) for sample in samples)
            missing = [each for each in wanted if each not in found]
            if missing:
                raise BadInput(
                    f"{self.path}: no sample of the {name} {missing[0]!r}; it has {', '.join(map(repr, found))}"
                )
            samples = [sample for sample in samples if not wanted or getattr(sample, name) in wanted]
        if self.max_duration is not None:
            samples = [sample for sample in samples if self._duration(sample) <= self.max_duration]
        if not samples:
            raise BadInput(f"{self.path}: no sample passes its filters; loosen them")
        return samples

    def _duration(self, sample: Sample) -> float:
        if sample.duration is None:
            raise BadInput(f"{self.path}: max_duration is asked for, and sample {sample.id} does not say its duration")
        return sample.duration

    @property
    def absolute(self) -> dict[str, str | None]:
        """The paths as another process finds them."""
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
    """`mixture[n]` is draw n, from 0 on without end, of the items of `parts` (each at least one) by `weights`."""

    def __init__(self, parts: Sequence[Sequence[T]], weights: Sequence[float], seed: int):
        self.parts, self.seed = parts, seed
        self._bounds = np.cumsum(weights)[:-1] / np.sum(weights)
        self._part = self._turn = np.empty(0, np.int64)
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    @property
    def items(self) -> Iterator[T]:
        """All that can be drawn, once each, part by part."""
        return chain(*self.parts)

    def __getitem__(self, n: int) -> T:
        part, turn = self._place(n)
        items = self.parts[part]
        epoch, at = divmod(turn, len(items))
        return items[self._order(part, epoch)[at]]

    def _place(self, n: int) -> tuple[int, int]:
        """(part, how many draws of it came before) of draw n."""
        if n >= len(self._part):
            draws = np.arange(1 << max(10, n.bit_length()))
            self._part = np.searchsorted(self._bounds, draws * GOLDEN % 1, side="right")
            self._turn = np.empty_like(self._part)
            for part in range(len(self.parts)):
                mine = self._part == part
                self._turn[mine] = np.arange(mine.sum())
        return int(self._part[n]), int(self._turn[n])

    def _order(self, part: int, epoch: int) -> np.ndarray:
        if self._orders.get(part, (-1,))[0] != epoch:
            order = np.random.default_rng([self.seed, epoch, part]).permutation(len(self.parts[part]))
            self._orders[part] = (epoch, order)
        return self._orders[part][1]
