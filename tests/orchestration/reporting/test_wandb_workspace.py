"""The workspace shows metrics that exist, and the library accepts its spec."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.reporting.metric_table import METRICS, metric_of
from orchestration.reporting.wandb_workspace import SECTIONS, spec

ROOT = Path(__file__).parents[3]
CHARTS = [chart for charts in SECTIONS.values() for chart in charts]


def test_every_chart_is_of_metrics_that_exist() -> None:
    for chart in CHARTS:
        assert bool(chart.metrics) != bool(chart.pattern)
        assert all(metric_of(name) for name in chart.metrics), chart
        if chart.pattern:
            names = [re.sub(r"\bN\b", "0", metric.name).replace("METRIC", "reward") for metric in METRICS]
            assert any(re.fullmatch(chart.pattern, name) for name in names), chart


def test_the_library_builds_and_checks_it_offline() -> None:
    pytest.importorskip("wandb_workspaces", reason="needs wandb-workspaces")
    text = json.dumps(spec("someone", "ser"))
    for chart in CHARTS:
        assert json.dumps(chart.title) in text
    assert "samples/frames" in text


def test_without_the_library_or_an_entity_one_line_says_what_is_missing() -> None:
    argv = [sys.executable, "-m", "orchestration.reporting.wandb_workspace"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == ("wandb_workspace: ENTITY is missing: name the user or team in wandb, or give --print\n")
