"""The table of metrics is whole, and the page shows it."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_runs import trained

from learner.algorithm import KL, AlgorithmConfig, Correction, Proximal
from learner.losses import PolicyOutput, TokenTargets, make_loss
from orchestration.reporting.metric_table import METRICS, SECTIONS, markdown, metric_of
from referee.reward.ser import claim_counts
from referee.service.service import COUNTS
from rollout.frames.store import FrameStore

ROOT = Path(__file__).parents[3]
PREFIXES = {metric.name.partition("/")[0] for metric in METRICS if "/" in metric.name}


def literals(path: Path) -> Iterator[str]:
    """The strings of a file that are names of metrics; what an f-string inserts is X."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        text = ""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        elif isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        prefix, _, rest = text.partition("/")
        if rest == "X":
            continue  # a name that only a run knows: see the other tests
        if prefix in PREFIXES and re.fullmatch(r"[A-Za-z_:/ ]+", rest):
            yield text


def test_every_name_in_the_code_has_a_line() -> None:
    files = [ROOT / "orchestration/train.py", *(ROOT / "referee/trust").glob("*.py")]
    files += [
        path
        for folder in ("reporting", "loop", "supervision")
        for path in (ROOT / "orchestration" / folder).glob("*.py")
    ]
    names = {name: path for path in files if path.name != "metric_table.py" for name in literals(path)}
    assert len(names) > 45, "the names are not found"
    unknown = {name: path.name for name, path in names.items() if metric_of(name) is None}
    assert not unknown, "describe them in orchestration/reporting/metric_table.py"


def test_every_name_that_a_run_writes_has_a_line(tmp_path: Path) -> None:
    trained(tmp_path, lambda group: group % 3 > 0, lambda group: group == 4, 4)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 4
    names = {name for line in lines for name in line}
    assert {"trained_prompts", "tokens/zero_variance", "engines/0/load", "claims/per_completion"} <= names
    assert [name for name in names if metric_of(name) is None] == []
    assert [line["trained_prompts"] for line in lines] == [2, 4, 6, 8]
    assert all(line["tokens/trained"] == 8 * line["step"] for line in lines)


@pytest.mark.parametrize("mode", ["none", "truncate", "mask"])
def test_every_number_of_the_losses_has_a_line(mode: str) -> None:
    proximal = Proximal("recomputed" if mode != "none" else "behaviour")
    config = AlgorithmConfig(kl=KL(coefficient=0.1), proximal=proximal, correction=Correction(mode=mode))
    one = torch.zeros(1, requires_grad=True)
    targets = TokenTargets(
        torch.ones(1), torch.ones(1), torch.zeros(1), torch.zeros(1, dtype=torch.int64), one.detach()
    )
    metrics = make_loss(config)(PolicyOutput(one), targets).metrics
    assert {"ratio_squared", "kl"} <= set(metrics)
    assert [name for name in metrics if metric_of(f"learner/{name}") is None] == []


def test_counters_of_referee_evidence_and_frames_have_lines() -> None:
    parts = {"_pool": SimpleNamespace(deaths=0, disk_failures=0), "_budget": SimpleNamespace(live=0)}
    store: Any = SimpleNamespace(counts=Counter(), _lost=(), **parts)
    names = [f"referee/{name}" for name in COUNTS] + [f"evidence/{name}" for name in claim_counts([], [], [])]
    names += [f"frames/{name}" for name in FrameStore.counters(store)]
    assert len(names) > 20
    assert [name for name in names if metric_of(name) is None] == []


def test_a_name_is_found_by_its_own_line_before_any_pattern() -> None:
    def name(of: str) -> str | None:
        metric = metric_of(of)
        return metric and metric.name

    assert name("reward/equal_groups") == "reward/equal_groups"
    assert name("reward/ser") == "reward/TERM"
    assert name("reward/General video QA Free-form/ser") == "reward/TASK/TERM"
    assert name("evidence/guard: degenerate box") == "evidence/guard: NAME"
    assert name("engines/12/load") == "engines/N/load"
    assert name("learner/unheard_of") is None
    assert name("seconds_more") is None


def test_the_page_shows_the_table() -> None:
    page = (ROOT / "docs/dashboards.md").read_text(encoding="utf-8")
    assert markdown() in page, "put the output of `python -m orchestration.reporting.metric_table` between its marks"
    assert len({metric.name for metric in METRICS}) == len(METRICS) == sum(map(len, SECTIONS.values()))
