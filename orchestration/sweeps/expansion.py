"""The runs of a sweep, from its config. Pure.

Guarantees:
- the order is that of nested loops: variants outermost, then the keys of grid in their order, zip, random, and seeds;
- a run's name says which values it has, does not depend on the other values of the sweep, and is that of one run only;
- settings of a section come before settings within it, whichever axis they are from, so a key that is given beside a
  recipe changes the recipe's value;
- equal configs give equal runs, random values included.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from evidence.errors import BadInput
from orchestration.sweeps.settings import Draw, RandomConfig, SweepConfig, axes_of, require_settable

BASE = "base"  # the arm of a sweep over seeds alone
MOST_RUNS = 10_000
MOST_NAME = 120  # characters of a run's name, which is a part of the names of files
MOST_DRAWS = 100  # for each sample that differs from those before it
Settings = dict[str, str]  # key -> value, as on the command line


@dataclass(frozen=True)
class SweepRun:
    """One run. arm: its name without the seed; the runs of an arm differ in their seeds only. overrides: `key=value`
    beside the sweep's config."""

    name: str
    arm: str
    seed: int | None
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """One value of an axis. label: its part of a run's name."""

    label: str
    settings: Settings


def expand(sweep: SweepConfig, extra: Sequence[str] = ()) -> list[SweepRun]:
    """The runs in their order. extra: further `key=value` of every run, which win over `fixed`. Raises BadInput."""
    _require_few(sweep)
    fixed = {key: _text(value) for key, value in sweep.fixed.items()} | _extra(sweep, extra)
    axes = _axes(sweep)
    if not axes and not sweep.seeds:
        raise BadInput("the sweep has one run only; give variants, grid, zip, random or seeds")
    runs = []
    for points in product(*axes):
        arm = "_".join(point.label for point in points) or BASE
        settings = fixed.copy()
        for point in points:
            settings |= point.settings
        if not sweep.seeds:
            runs.append(SweepRun(arm, arm, None, _overrides(settings)))
        for seed in sweep.seeds:
            labels = [*(point.label for point in points), f"seed-{seed}"]
            runs.append(SweepRun("_".join(labels), arm, seed, _overrides(settings | {"seed": str(seed)})))
    _require_distinct(runs)
    return runs


def random_settings(config: RandomConfig) -> list[Settings]:
    """The drawn settings of each sample, all different. The first ones do not depend on how many there are. Raises
    BadInput if there are not so many."""
    rng = np.random.default_rng(config.seed)
    drawn: dict[tuple[str, ...], Settings] = {}
    for _ in range(MOST_DRAWS * config.samples):
        settings = {key: _drawn(draw, rng) for key, draw in config.draw.items()}
        drawn.setdefault(tuple(settings.values()), settings)
        if len(drawn) == config.samples:
            return list(drawn.values())
    raise BadInput(
        f"random.samples = {config.samples}: only {len(drawn)} different ones were drawn; lower it, or use grid"
    )


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """The shortest end of each dotted key that no other of the keys has."""
    keys = list(dict.fromkeys(keys))
    short = {}
    for key in keys:
        ends = [".".join(key.split(".")[-length:]) for length in range(1, key.count(".") + 2)]
        others = [f".{other}" for other in keys if other != key]
        short[key] = next((end for end in ends if not any(other.endswith(f".{end}") for other in others)), key)
    return short


def _axes(sweep: SweepConfig) -> list[list[Point]]:
    short = short_names(key for keys in axes_of(sweep).values() for key in keys)

    def label(settings: Settings) -> str:
        return "_".join(f"{_safe(short[key])}-{_safe(value)}" for key, value in settings.items())

    def point(settings: Mapping[str, str | None], name: str = "") -> Point:
        texts = {key: _text(value) for key, value in settings.items()}
        return Point(name or label(texts), texts)

    axes = [[point({key: value}) for value in values] for key, values in sweep.grid.items()]
    if sweep.variants:
        axes.insert(0, [point(variant.set, variant.name) for variant in sweep.variants])
    if sweep.zip:
        axes.append([point(dict(zip(sweep.zip, row))) for row in zip(*sweep.zip.values())])
    if sweep.random:
        axes.append([point(drawn, f"random-{n}") for n, drawn in enumerate(random_settings(sweep.random))])
    return axes


def _require_few(sweep: SweepConfig) -> None:
    """Raises BadInput for too many runs, before they are made."""
    lengths = [len(sweep.variants), len(sweep.seeds), *(len(values) for values in sweep.grid.values())]
    lengths += [len(values) for values in sweep.zip.values()][:1]
    lengths += [sweep.random.samples] if sweep.random else []
    count = math.prod(length for length in lengths if length)
    if count > MOST_RUNS:
        raise BadInput(f"the sweep has {count:,} runs; at most {MOST_RUNS:,} are possible")


def _extra(sweep: SweepConfig, extra: Sequence[str]) -> Settings:
    """The settings of the command line. Raises BadInput for a key that an axis sets."""
    axis_of = {key: axis for axis, keys in axes_of(sweep).items() for key in keys}
    settings = {}
    for text in extra:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise BadInput(f"override {text!r}: write it as key=value")
        if key in axis_of:
            raise BadInput(f"override {key}=…: {axis_of[key]} of the sweep sets this key; change it there")
        require_settable(f"override {key}=…", [key])
        settings[key] = value
    return settings


def _drawn(draw: Draw, rng: np.random.Generator) -> str:
    if draw.choice is not None:
        return _text(draw.choice[int(rng.integers(len(draw.choice)))])
    if draw.uniform is not None:
        low, high = draw.uniform
        value = rng.uniform(low, high)
    else:
        assert draw.log_uniform is not None
        low, high = draw.log_uniform
        value = math.exp(rng.uniform(math.log(low), math.log(high)))
    return repr(min(max(float(f"{value:.4g}"), low), high))  # rounded for readers, but never beyond a bound


def _overrides(settings: Settings) -> tuple[str, ...]:
    return tuple(f"{key}={settings[key]}" for key in sorted(settings, key=lambda key: key.count(".")))


def _text(value: str | None) -> str:
    return "null" if value is None else value


def _safe(text: str) -> str:
    """Text that needs no quotes in a shell, a path and a URL."""
    words = re.findall(r"[A-Za-z0-9._+-]+", text)
    return "-".join(words)


def _require_distinct(runs: Sequence[SweepRun]) -> None:
    """Raises BadInput for two runs with the same settings or the same name, and for a name that is too long."""
    by_settings: dict[tuple[str, ...], SweepRun] = {}
    by_name: dict[str, SweepRun] = {}
    for run in runs:
        if len(run.name) > MOST_NAME:
            raise BadInput(
                f"run {run.name[:40]}…: its name has {len(run.name)} characters, at most {MOST_NAME} are possible; "
                "put its settings into variants, which have names"
            )
        same = by_settings.setdefault(tuple(sorted(run.overrides)), run)
        if same is not run:
            raise BadInput(f"runs {same.name} and {run.name} have the same settings: {_listed(run)}; leave one out")
        same = by_name.setdefault(run.name, run)
        if same is not run:
            raise BadInput(
                f"run {run.name}: two runs have this name, {_listed(same)} and {_listed(run)}; put these settings into "
                "variants with names"
            )


def _listed(run: SweepRun) -> str:
    return " ".join(run.overrides)
