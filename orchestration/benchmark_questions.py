"""The benchmarks that a training run evaluates (`eval.benchmarks`): their questions, with the paths of their videos.

Guarantees: all that can be checked is checked before anything starts, and a fault is one line that names the key; a
question whose video is missing, or must be cut first, stays in the benchmark as unanswered, and is counted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from evaluation.exams import Ask, Exam, exam_of, require_options
from evaluation.faults import Faults
from evaluation.reading import data_files, rows
from evaluation.registry import named
from evaluation.videos import MediaFolder
from evidence.errors import BadInput
from evidence.sampling import SamplingContract
from evidence.spaces import Written
from evidence.types import Sample
from orchestration.eval_settings import BenchmarkConfig
from rollout.prompt import printed_times
from rollout.template import PromptTemplate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Questions:
    """A benchmark's questions. asks: those that can be asked; samples: the same, as the pipeline takes them."""

    config: BenchmarkConfig
    exam: Exam
    asks: Sequence[Ask]
    samples: Sequence[Sample]

    def report(self, lines: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """As `ser eval` reports completions, by the ids of their questions. Answers that need a judge have none."""
        return self.exam.report(lines, _options(self.config), {}, Faults())

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of its metrics, as in the results."""
        return tuple(values_of(self.report({})))


def read_questions(config: BenchmarkConfig, contract: SamplingContract, template: PromptTemplate) -> Questions:
    """Raises BadInput."""
    try:
        return _read(config, contract, template)
    except BadInput as error:
        raise BadInput(f"eval.benchmarks: {config.set_name}: {str(error).removeprefix('--')}") from None


def values_of(report: Mapping[str, Any], key: str | None = None) -> dict[str, Any]:
    """The metrics of all samples in a report of `ser eval`, by name, such as `acc` or `chain1.m_tiou`. `key`: `ci95`
    for their intervals."""
    values = report if key is None else report[key]
    return dict(chain.from_iterable(_leaves(values[name], name) for name in report["ci95"]))


def _leaves(value: Any, name: str) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, f"{name}.{key}")]
    return [(name, value)]


def _read(config: BenchmarkConfig, contract: SamplingContract, template: PromptTemplate) -> Questions:
    data, faults = Path(config.data), Faults()
    placed = (row for file in data_files(data) for row in rows(file, faults))
    written = Written(template.box_space, partial(printed_times, template))
    exam = exam_of(named(config.name), placed, config.limit, written, faults)
    require_options(exam, _options(config))
    if exam.shows_end and not contract.key_frames:
        raise BadInput("asks about the last frame of each video, which is only shown with contract.key_frames = true")
    folder = Path(config.videos) if config.videos else data if data.is_dir() else data.parent
    videos, asks, samples, missing = MediaFolder(folder), [], [], []
    for ask in exam.asks:
        try:
            path = str(videos.find(ask.video).absolute())
        except FileNotFoundError as error:
            missing.append(f"{ask.video}: {error}")
            continue
        asks.append(ask)
        is_image = ask.sample.image_path is not None
        samples.append(replace(ask.sample, image_path=path) if is_image else replace(ask.sample, video_path=path))
    if not asks:
        raise BadInput(f"none of its {len(exam.asks)} questions has its video in {folder}, the first is {missing[0]}")
    if missing:
        log.warning(
            "eval.benchmarks: %s: %d of %d questions cannot be asked and count as unanswered, the first is %s",
            *(config.set_name, len(missing), len(exam.asks), missing[0]),
        )
    return Questions(config, exam, asks, samples)


def _options(config: BenchmarkConfig) -> dict[str, str]:
    return {} if config.protocol is None else {"protocol": config.protocol}
