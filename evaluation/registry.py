"""The benchmarks that `ser eval` knows. Adding one: a module in evaluation/benchmarks/, and its line here. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.benchmark import Benchmark, Record, ResultBenchmark
from evaluation.benchmarks import vstar
from evaluation.measures import Metrics
from evidence.errors import BadInput

BENCHMARKS: dict[str, Benchmark | ResultBenchmark] = {module.BENCHMARK.name: module.BENCHMARK for module in (vstar,)}


def named(name: str) -> Benchmark | ResultBenchmark:
    """Raises BadInput for a name that no benchmark has."""
    if name not in BENCHMARKS:
        raise BadInput(f"{name}: no such benchmark; known are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def table_of(
    benchmark: Benchmark | ResultBenchmark, report: Mapping[str, Any], records: Sequence[Record]
) -> tuple[np.ndarray, Metrics]:
    """Columns, float [N, K], and metrics of N of a report's samples."""
    if isinstance(benchmark, ResultBenchmark):
        return benchmark.table(report, records)
    return benchmark.table(records)
