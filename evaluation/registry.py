"""The benchmarks that `ser eval` knows. Adding one: a module in evaluation/benchmarks/, and a line in NAMES. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from evaluation.benchmark import Benchmark, Record, ResultBenchmark
from evaluation.measures import Metrics
from evidence.errors import BadInput

# The module of each benchmark in evaluation/benchmarks/, which is also its name on the command line.
NAMES = (
    "vstar",
    "videomme",
    "videommmu",
    "worldsense",
    "perception_test",
    "tvgbench",
    "lvbench",
    "longvideobench",
    "mvbench",
    "tempcompass",
    "vsi_bench",
    "data",
)


def named(name: str) -> Benchmark | ResultBenchmark:
    """Raises BadInput for a name that no benchmark has."""
    if name not in NAMES:
        raise BadInput(f"{name}: no such benchmark; known are {', '.join(NAMES)}")
    benchmark: Benchmark | ResultBenchmark = import_module(f"evaluation.benchmarks.{name}").BENCHMARK
    return benchmark


def table_of(
    benchmark: Benchmark | ResultBenchmark, report: Mapping[str, Any], records: Sequence[Record]
) -> tuple[np.ndarray, Metrics]:
    """Columns, float [N, K], and metrics of N of a report's samples."""
    if isinstance(benchmark, ResultBenchmark):
        return benchmark.table(report, records)
    return benchmark.table(records)
