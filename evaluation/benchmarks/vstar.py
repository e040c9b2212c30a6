"""V-STaR (arXiv 2503.11495): what, when and where, in two chains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.benchmark import Record, ResultBenchmark
from evaluation.measures import Metrics
from evaluation.vstar.measures import columns, measures
from evaluation.vstar.prompts import questions
from evaluation.vstar.report import evaluate, judge_prompts


def _table(report: Mapping[str, Any], records: Sequence[Record]) -> tuple[np.ndarray, Metrics]:
    return columns(records), measures(report["mode"])


BENCHMARK = ResultBenchmark("vstar", "V-STaR", evaluate, judge_prompts, questions, _table)
