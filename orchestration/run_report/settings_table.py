"""The settings of runs as a table: those that differ from the defaults, and those that differ between the runs. Pure.

config.yaml is compared as it is written, so that settings which this version does not know are in the table, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from omegaconf import MISSING, OmegaConf

from orchestration.run_report.recorded import Run
from orchestration.settings import TrainConfig
from referee.reward.settings import RewardConfig, TermConfig
from referee.service.sources import RefereeSource
from rollout.dataset.mix import DataFile, DataShare

EMPTY: tuple[Any, ...] = ([], {}, "", None)
ABSENT = "–"
PER_RUN = ("run_dir", "resume")


@dataclass(frozen=True)
class Row:
    """values: of each run, as text. differs: whether they differ between the runs."""

    key: str
    values: tuple[str, ...]
    default: str
    differs: bool


def settings_rows(runs: Sequence[Run]) -> list[Row]:
    """The settings that differ from the default in any run, or between the runs; the latter first."""
    flat = [dict(flattened(run.settings)) for run in runs]
    keys = dict.fromkeys(key for settings in flat for key in settings if key not in PER_RUN)
    rows = []
    for key in keys:
        default = _text(defaults().get(_nameless(key), ABSENT))
        values = tuple(_text(settings.get(key, ABSENT)) for settings in flat)
        differs = len(set(values)) > 1
        if differs or values[0] != default:
            rows.append(Row(key, values, default, differs))
    return sorted(rows, key=lambda row: not row.differs)


def flattened(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of all that is no mapping with content, and of the mappings in lists."""
    if isinstance(value, Mapping) and value:
        for name, content in value.items():
            yield from flattened(content, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        for number, entry in enumerate(value):
            yield from flattened(entry, f"{key}.{number}")
    else:
        yield key, value


@cache
def defaults() -> dict[str, Any]:
    """The default of each setting that has one, by its key without the names of reward terms and without numbers."""
    schemas = {"": TrainConfig, "data.train..": DataShare, "data.heldout.": DataFile, "model.referee..": RefereeSource}
    schemas |= {"reward.": RewardConfig, "reward.terms..": TermConfig}
    known: dict[str, Any] = {}
    for prefix, schema in schemas.items():
        content = OmegaConf.to_container(OmegaConf.structured(schema))
        known |= {f"{prefix}{key}": value for key, value in flattened(content) if value != MISSING}
    return known


def _nameless(key: str) -> str:
    parts = key.split(".")
    if parts[:2] == ["reward", "terms"] and len(parts) > 2:
        parts[2] = ""
    return ".".join("" if part.isdigit() else part for part in parts)


def _text(value: Any) -> str:
    """A value that is empty is shown like one that is absent."""
    if isinstance(value, bool):
        return str(value).lower()
    return ABSENT if value in EMPTY else str(value)
