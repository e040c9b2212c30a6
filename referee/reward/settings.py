"""The config of a reward recipe: `configs/reward/*.yaml`, and the section `reward` of a training config."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from evidence.config_checks import require, require_least, require_one_of, require_share
from evidence.errors import BadInput
from referee.reward.binding import option_names

NORMALISE = ("sum", "each", "task_std")


@dataclass
class TermConfig:
    """One term of the sum.

    weight: its factor. use: the name of a built-in term, or `module:function`; the key of this term if empty.
    tasks: the tasks of the samples that it applies to; all if empty. On other samples its value is 0.
    gate: other terms of the recipe, each with the raw value that it must reach for this term to be paid.
    schedule: (progress, factor) pairs that multiply the weight, in order of progress (0-1); linear between them,
        constant before and after.
    options: keyword arguments of the term's function.
    """

    use: str = ""
    weight: float = 1.0
    tasks: list[str] = field(default_factory=list)
    gate: dict[str, float] = field(default_factory=dict)
    schedule: list[list[float]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    def factor(self, progress: float) -> float:
        """The factor that multiplies the weight at training progress 0-1."""
        if not self.schedule:
            return 1.0
        before = [point for point in self.schedule if point[0] <= progress]
        after = [point for point in self.schedule if point[0] > progress]
        if not before or not after:
            return (before or after)[-1 if before else 0][1]
        (x1, y1), (x2, y2) = before[-1], after[0]
        return y1 + (y2 - y1) * (progress - x1) / (x2 - x1)

    @staticmethod
    def free_keys(name: str, section: Any) -> list[str]:
        """The keys that the options of the term `name`, written as `section`, may have: what an unknown key of a config
        is compared with. None for a term that cannot be found."""
        use = section.get("use") if isinstance(section, dict) else None
        try:
            return [f"options.{option}" for option in option_names(str(use or name))]
        except BadInput:
            return []


@dataclass
class RewardConfig:
    """A sum of terms, `weight * value`, computed in their order.

    recipe: the name of a file in configs/reward/, or a path, to start from; empty once it has been read.
    normalise: how advantages are made. `sum`: the sum, normalised within its group. `each`: every term within its
        group, then their sum over the step's batch (GDPO). `task_std`: the sum, centred in its group and divided by a
        running standard deviation of its task (EMA-GRPO).
    terms: by name. max_left_out: the run stops if more than this share of the last groups lacks a term because of a
        missing verdict. watched: the number of these groups.
    """

    SHORT = "recipe"
    FOLDER = "reward"

    recipe: str = ""
    terms: dict[str, TermConfig] = field(default_factory=dict)
    normalise: str = "sum"
    max_left_out: float = 0.25
    watched: int = 64

    def __post_init__(self) -> None:
        require(bool(self.terms), "terms", self.terms, "at least one term")
        require_one_of(self, NORMALISE, "normalise")
        require_share(self, "max_left_out")
        require_least(self, 1, "watched")
        for name, term in self.terms.items():
            _check(f"terms.{name}", name, term, list(self.terms))


def _check(where: str, name: str, term: TermConfig, names: list[str]) -> None:
    if not math.isfinite(term.weight):
        raise BadInput(f"{where}.weight = {term.weight}: must be finite")
    for other, least in term.gate.items():
        if other not in names or other == name:
            others = ", ".join(n for n in names if n != name) or "there is none"
            raise BadInput(f"{where}.gate.{other}: must be another term of the recipe: {others}")
        if not math.isfinite(least):
            raise BadInput(f"{where}.gate.{other} = {least}: must be finite")
    points = term.schedule
    if any(len(point) != 2 or not 0 <= point[0] <= 1 or not math.isfinite(point[1]) for point in points):
        raise BadInput(f"{where}.schedule = {points}: each point must be [progress from 0 to 1, finite factor]")
    if any(a[0] >= b[0] for a, b in pairwise(points)):
        raise BadInput(f"{where}.schedule = {points}: progress must increase from one point to the next")
