"""`ser data check` and `ser data convert`: what a person sees of rollout/dataset."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from evidence.errors import BadInput
from evidence.sampling import SamplingContract
from rollout.dataset.check import add_media, check, media_of
from rollout.dataset.convert import convert
from rollout.dataset.read import DatasetFile
from rollout.frames.config import FramesConfig

T = TypeVar("T")
SHOWN = 5  # of what may be long; --json has all


def check_file(file: DatasetFile, media: bool, against: DatasetFile | None, workers: int, as_json: bool) -> None:
    """Print the report, with the media that `against` has too. Raises BadInput, after it, if media of either are
    missing or unreadable."""
    if workers < 1:
        raise BadInput(f"--workers {workers}: it has to be 1 or more")
    report, samples = check(file)
    paths, theirs = media_of(samples), against and media_of(list(against))
    if media:
        from rollout.dataset.media import decoded  # loads the decoder

        there, run = [path for path in paths if path not in set(report.missing_media)], FramesConfig()
        found_out = decoded(there, SamplingContract(), workers, run.timeout_s, run.worker_bytes)
        add_media(report, samples, dict(_with_progress("decoding", found_out, len(there))))
    found: dict[str, Any] = asdict(report)
    if theirs is not None:
        from rollout.dataset.media import shared

        found["overlap"], found["not_compared"] = shared(paths, theirs)
    if as_json:
        print(json.dumps(found))
    else:
        _print_table(found, file.path)
    broken = [*report.missing_media, *report.unreadable_media]
    if broken:
        raise BadInput(
            f"{file.path}: {len(broken)} of its media files cannot be read, the first is {broken[0]}; "
            "mend or remove the samples that name them"
        )
    if left_out := found.get("not_compared"):
        raise BadInput(
            f"{against and against.path}: {len(left_out)} media files could not be compared, the first is "
            f"{left_out[0]}; name the folder they lie in by --against-media-root, or remove the samples that name them"
        )


def convert_file(file: DatasetFile, target: Path, to: str) -> None:
    done = convert(file, target, to)
    print(f"{target}: {done.samples} samples, from {file.format.name} to {to}")
    if done.unread:
        keys = ", ".join(f"{key} ({rows})" for key, rows in sorted(done.unread.items()))
        print(f"keys that are not part of a sample, left out (rows that had them): {keys}")


def _with_progress(what: str, items: Iterable[T], total: int) -> Iterator[T]:
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(what, total=total)
        for item in items:
            progress.advance(bar)
            yield item


def _print_table(found: dict[str, Any], path: Path) -> None:
    table = Table(title=escape(str(path)), show_header=False)
    for name, value in found.items():
        table.add_row(name, escape(_cell(value)))
    Console().print(table)


def _cell(value: Any) -> str:
    if not isinstance(value, dict | list):
        return str(value)
    lines = [f"{each}: {value[each]}" for each in value] if isinstance(value, dict) else value
    counts = isinstance(value, dict) and all(isinstance(each, int) for each in value.values())
    if not lines or counts:
        return "\n".join(lines) or "none"
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n".join([f"{len(lines)}:", *lines[:SHOWN], *more])
