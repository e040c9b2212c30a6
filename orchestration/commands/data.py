"""`ser data check` and `ser data convert`: the printed reports on rollout/dataset."""

from __future__ import annotations

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
from evidence.plain import dumps
from evidence.sampling import SamplingContract
from referee.terms.references import unscorable
from rollout.dataset.check import add_media, check, media_of
from rollout.dataset.convert import convert
from rollout.dataset.read import DatasetFile
from rollout.frames.config import FramesConfig

T = TypeVar("T")
# No model is given whose tile `multiple` could follow. Whether a file can be read does not depend on it.
CHECKED = SamplingContract(multiple=2)
SHOWN = 5  # entries of a long list in the table; --json prints all


def check_file(file: DatasetFile, media: bool, against: DatasetFile | None, workers: int, as_json: bool) -> None:
    """Print the report, including the media shared with `against`. Then raise BadInput if media of either are missing
    or unreadable."""
    if workers < 1:
        raise BadInput(f"--workers {workers}: must be 1 or more")
    report, samples = check(file)
    rates = media_of(samples)
    test_paths = None if against is None else list(media_of(against))
    if media:
        from rollout.dataset.media import decoded  # loads the decoder

        missing, limits = set(report.missing_media), FramesConfig()
        present = {path: fps for path, fps in rates.items() if path not in missing}
        outcomes = decoded(present, CHECKED, workers, limits.timeout_s, limits.worker_bytes)
        add_media(report, samples, dict(with_progress("decoding", outcomes, len(present))))
    values: dict[str, Any] = asdict(report)
    values["unscorable"] = {sample.id: reason for sample in samples if (reason := unscorable(sample)) is not None}
    if test_paths is not None:
        from rollout.dataset.media import shared

        values["overlap"], values["not_compared"] = shared(list(rates), test_paths)
    if as_json:
        print(dumps(values))
    else:
        _print_table(values, file.path)
    broken = [*report.missing_media, *report.unreadable_media]
    if broken:
        raise BadInput(
            f"{file.path}: {len(broken)} of its media files cannot be read, the first is {broken[0]}; "
            "repair the files, or remove the samples that name them"
        )
    if not_compared := values.get("not_compared"):
        raise BadInput(
            f"{against and against.path}: {len(not_compared)} media files could not be compared, the first is "
            f"{not_compared[0]}; give their folder with --against-media-root, or remove the samples that name them"
        )


def convert_file(file: DatasetFile, target: Path, to: str) -> None:
    """Write `target` in the format `to`, and print the counts. Raises BadInput."""
    converted = convert(file, target, to)
    print(f"{target}: {converted.samples} samples, from {file.format.name} to {to}")
    if converted.unread:
        keys = ", ".join(f"{key} ({rows})" for key, rows in sorted(converted.unread.items()))
        print(f"keys that are not part of a sample, left out (number of rows): {keys}")


def with_progress(description: str, items: Iterable[T], total: int) -> Iterator[T]:
    """The items, with a progress bar on a terminal."""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(description, total=total)
        for item in items:
            progress.advance(bar)
            yield item


def _print_table(report: dict[str, Any], path: Path) -> None:
    table = Table(title=escape(str(path)), show_header=False)
    for name, value in report.items():
        table.add_row(name, escape(_cell(value)))
    Console().print(table)


def _cell(value: Any) -> str:
    if not isinstance(value, dict | list):
        return str(value)
    lines = [f"{key}: {content}" for key, content in value.items()] if isinstance(value, dict) else value
    only_counts = isinstance(value, dict) and all(isinstance(content, int) for content in value.values())
    if not lines or only_counts:
        return "\n".join(lines) or "none"
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n".join([f"{len(lines)}:", *lines[:SHOWN], *more])
