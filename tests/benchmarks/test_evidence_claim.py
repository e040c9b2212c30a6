"""The comparison of trained policies by V-STaR's metrics: what is pooled, elected and compared with what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.evidence_claim import ARMS, METHODS, ROOT, SINGLE, WARM, Arm, Measured, elected, tables, trained
from benchmarks.vstar_answers import CITED, CLAIMS, KINDS, METRICS, report
from evidence.errors import BadInput
from rollout.dataset.shapes_vstar import make_vstar


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("vstar") / "shapes"
    make_vstar(out, train=0, val=0, test=8, seed=1, workers=1)
    return json.loads((out / "test.json").read_text())


def measured(rows: list[dict[str, Any]], right: int, r_ser: float | None = 0.3) -> Measured:
    """A model whose answers to "what" are right in the first `right` rows, and that answers nothing else."""
    texts = {f"{n}/{kind}": "" for n in range(len(rows)) for kind in KINDS}
    texts |= {f"{n}/what": row["answer"] if n < right else "nowhere" for n, row in enumerate(rows)}
    return Measured({SINGLE: report(rows, texts)}, {SINGLE: 1.0}, r_ser)


def cells(table: str) -> dict[str, dict[str, str]]:
    header, _, *lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()]
    return {line[0]: dict(zip(header, line)) for line in lines}


def test_metrics_are_pooled_over_seeds_and_compared_with_the_warm_start_in_the_same_form(
    rows: list[dict[str, Any]],
) -> None:
    results = {
        WARM[CLAIMS]: [measured(rows, 2)],
        "ser": [measured(rows, 4), measured(rows, 8)],
        WARM[CITED]: [measured(rows, 6, None)],
        "rler": [measured(rows, 7, None)],
    }
    absolute, relative = map(cells, tables(results).split("\n\n"))
    assert absolute["ser"]["Acc"].startswith("0.750 (")
    assert len(absolute["ser"]["mLGM by seed"].split("/")) == len(absolute["ser"]["r_SER"].split("/")) == 2
    assert absolute["rler"]["r_SER"] == "-"
    assert set(relative) == {"ser", "rler"}
    assert relative["ser"]["Acc"].startswith("+0.500 (")
    assert relative["rler"]["Acc"].startswith("+0.125 (")
    assert [*relative["ser"]][2:] == list(METRICS.values())


def test_the_greedy_completion_is_no_candidate_and_a_question_without_answers_keeps_its_first_draw() -> None:
    texts = {
        "0/what": [f"<answer>{answer}</answer>" for answer in ("greedy", "a", "b", "b", "c", "d", "e")],
        "0/when": ["<answer>1 to 2</answer>", *("nothing" for _ in range(6))],
    }
    chosen, used = elected(texts, METHODS["majority"])
    assert chosen == {"0/what": "<answer>b</answer>", "0/when": "nothing"}
    assert used == 6


def test_every_arm_has_a_warm_start_in_its_form_and_its_own_config(tmp_path: Path) -> None:
    assert {arm.form for arm in ARMS.values()} == set(WARM)
    assert all(ARMS[name].config is None for name in WARM.values())
    run = tmp_path / "run"
    run.mkdir()
    (run / "summary.json").write_text("{}")
    (run / "config.yaml").write_text(f"include: [{ROOT}/configs/experiment/evidence_claim.yaml]\nsteps: 7\n")
    with pytest.raises(BadInput, match="differs from the requested one"):
        trained(Arm(CLAIMS, "evidence_claim"), run, [])
