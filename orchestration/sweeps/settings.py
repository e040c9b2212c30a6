"""The config schema of `ser sweep`: which runs a sweep has, and how they are run. Pure.

Every value of a run's key is written as on the command line of `ser train`, where it becomes `key=value`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from evidence.config_checks import MOST_SEED, require, require_least
from evidence.errors import BadInput
from orchestration.config import load_config, unknown_keys

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
MOST_PARALLEL = 10_000
OWN_KEYS = {"run_dir": "the sweep gives each run its own folder", "resume": "every run has resume=auto"}


@dataclass(frozen=True)
class Variant:
    """Settings that belong together. name: in the names of its runs; by default made from the settings."""

    set: dict[str, str | None] = MISSING
    name: str = ""

    def __post_init__(self) -> None:
        require(bool(self.set), "set", dict(self.set), "at least one key with its value")
        require(
            not self.name or NAME.fullmatch(self.name) is not None,
            "name",
            self.name,
            "of letters, digits and . _ + - and begin with a letter or a digit",
        )


@dataclass(frozen=True)
class Draw:
    """How a key's random values are drawn: exactly one of the three. uniform, log_uniform: [lowest, highest]."""

    uniform: list[float] | None = None
    log_uniform: list[float] | None = None
    choice: list[str | None] | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("uniform", "log_uniform", "choice") if getattr(self, name) is not None]
        if len(given) != 1:
            raise BadInput(f"uniform, log_uniform, choice: give exactly one of them, not {len(given)}")
        require(self.choice is None or bool(self.choice), "choice", self.choice, "a list of at least one value")
        for name, bounds in (("uniform", self.uniform), ("log_uniform", self.log_uniform)):
            if bounds is not None:
                right = len(bounds) == 2 and bounds[0] < bounds[1] < float("inf") and bounds[0] > -float("inf")
                require(right, name, list(bounds), "[lowest, highest], both finite")
        if self.log_uniform is not None:
            require(self.log_uniform[0] > 0, "log_uniform", list(self.log_uniform), "above 0")


@dataclass(frozen=True)
class RandomConfig:
    """samples: how many. seed: of the draws; the first samples do not depend on how many there are."""

    samples: int = MISSING
    draw: dict[str, Draw] = MISSING
    seed: int = 0

    def __post_init__(self) -> None:
        require_least(self, 1, "samples")
        require_least(self, 0, "seed", most=MOST_SEED)
        require(bool(self.draw), "draw", dict(self.draw), "at least one key with how it is drawn")


@dataclass(frozen=True)
class SweepConfig:
    """The runs of a sweep: all combinations of variants, grid, zip, random and seeds.

    config: the config of `ser train` that all runs start from: a path relative to the sweep's file, or the name of one
        that comes with ser.
    sweep_dir: the folder of the sweep; its name is the group of the runs in wandb.
    fixed: settings of every run.
    variants: settings that belong together, one entry after the other. The first variant is the baseline.
    grid: keys with their values, in all combinations. zip: keys whose first values belong together, then their second
        ones, and so on; the lists have the same length. random: keys whose values are drawn.
    seeds: values of `seed`, over which results are averaged.
    parallel: how many runs go on at once. retries: how often a run that failed is started again.
    """

    config: str = MISSING
    sweep_dir: str = MISSING
    fixed: dict[str, str | None] = field(default_factory=dict)
    variants: list[Variant] = field(default_factory=list)
    grid: dict[str, list[str | None]] = field(default_factory=dict)
    zip: dict[str, list[str | None]] = field(default_factory=dict)
    random: RandomConfig | None = None
    seeds: list[int] = field(default_factory=list)
    parallel: int = 1
    retries: int = 1

    def __post_init__(self) -> None:
        require(bool(self.config), "config", self.config, "the path of a config of `ser train`")
        require(bool(self.sweep_dir), "sweep_dir", self.sweep_dir, "a folder")
        require_least(self, 1, "parallel", most=MOST_PARALLEL)
        require_least(self, 0, "retries")
        for seed in self.seeds:
            require(0 <= seed <= MOST_SEED, "seeds", list(self.seeds), f"whole numbers from 0 to {MOST_SEED}")
        for name, values in self.grid.items():
            require(bool(values), f"grid.{name}", list(values), "a list of at least one value")
        lengths = {len(values) for values in self.zip.values()}
        require(
            lengths in (set(), {max(lengths, default=0)}) and 0 not in lengths,
            "zip",
            {name: len(values) for name, values in self.zip.items()},
            "lists of the same length, with at least one value",
        )
        _require_separate(self)


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """The config of a sweep. Raises BadInput."""
    known = list(SweepConfig.__dataclass_fields__)
    for key in unknown_keys(SweepConfig, path):
        (nearest,) = difflib.get_close_matches(key, known, n=1, cutoff=0)
        raise BadInput(f"{path}: unknown key {key}; the nearest known one is {nearest}, all are: {', '.join(known)}")
    return load_config(SweepConfig, path, overrides)


def axes_of(sweep: SweepConfig) -> dict[str, list[str]]:
    """The keys that each axis sets, by the axis' name. Variants may set different keys."""
    variants = [key for variant in sweep.variants for key in variant.set]
    return {
        "variants": list(dict.fromkeys(variants)),
        "grid": list(sweep.grid),
        "zip": list(sweep.zip),
        "random": list(sweep.random.draw) if sweep.random else [],
        "seeds": ["seed"] if sweep.seeds else [],
    }


def _require_separate(sweep: SweepConfig) -> None:
    """Require that no key is set at two places, and none that the sweep sets itself."""
    places: dict[str, str] = {}
    for place, keys in {"fixed": [*sweep.fixed], **axes_of(sweep)}.items():
        require_settable(place, keys)
        for key in keys:
            if key in places:
                raise BadInput(f"{place}: {key} is set by {places[key]}, too; leave it in one of them")
            places[key] = place


def require_settable(place: str, keys: Iterable[str]) -> None:
    """Require keys that a run of a sweep may set."""
    for key in keys:
        if key in OWN_KEYS:
            raise BadInput(f"{place}: {key} cannot be set: {OWN_KEYS[key]}")
