"""Questions to train on about the embedded world in V-STaR's format, and the forms of their answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.vstar_answers import FORMS, in_form, report
from benchmarks.vstar_questions import ASKS, CITED, CLAIMS, FREE_FORM, write_questions
from evaluation.vstar.prompts import questions
from evidence.answers import cited_frames, confidence
from evidence.geometry import convert, iou
from evidence.grammar import parse
from evidence.types import NORMALISED, FrameInfo, Sample
from orchestration.commands.sft import SftConfig
from orchestration.config import load_config
from orchestration.settings import TrainConfig
from referee.reward.graph import RewardGraph
from referee.terms.view import GroupView
from rollout.dataset import read_dataset
from rollout.dataset.open_o3 import SPATIO_TEMPORAL_QA, TEMPORAL_QA
from rollout.dataset.shapes import DURATION, FRAME_SPACE
from rollout.dataset.shapes_vstar import make_vstar

ROOT = Path(__file__).parents[2]
EXPERIMENT = ROOT / "configs/experiment"
CONFIGS = {CLAIMS: EXPERIMENT / "evidence_claim.yaml", CITED: EXPERIMENT / "evidence_claim_rler.yaml"}
SHOWN = FrameInfo("", tuple(map(float, range(8))), (56, 56), (112, 112), DURATION)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("vstar") / "shapes"
    make_vstar(out, train=12, val=0, test=0, questions=1, seed=1, workers=1)
    assert write_questions(out / "train.json", seed=0) == {"rl": 36, "sft": 48}
    return out


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "train.json").read_text())


@pytest.fixture(scope="module")
def to_imitate(folder: Path) -> list[Sample]:
    return read_dataset(folder / "train-sft.jsonl")


@pytest.fixture(scope="module")
def to_reward(folder: Path) -> list[Sample]:
    return read_dataset(folder / "train-rl.jsonl")


def kind_of(sample: Sample) -> str:
    return "where" if "JSON" in sample.question else "when" if "start and the end" in sample.question else "what"


def test_every_completion_is_in_the_form_that_its_prompt_asks_for(to_imitate: list[Sample]) -> None:
    assert {(kind_of(s), s.task) for s in to_imitate} == {(k, f) for k in ("what", "when", "where") for f in FORMS}
    for sample in to_imitate:
        other = CITED if sample.task == CLAIMS else CLAIMS
        assert in_form(kind_of(sample), sample.task, sample.reasoning or "")
        assert not in_form(kind_of(sample), other, sample.reasoning or "")


@pytest.mark.parametrize("form", FORMS)
def test_training_and_evaluation_ask_as_the_warm_start_did(
    form: str, rows: list[dict[str, Any]], to_reward: list[Sample]
) -> None:
    warm = load_config(SftConfig, ROOT / "configs/sft/policy-vstar.yaml").template
    trained = load_config(TrainConfig, CONFIGS[form]).template
    for sample in to_reward:
        asked = f"{sample.question}\n{ASKS[sample.task]}"
        expected = warm.ask(Sample("", "", form, asked, ""), DURATION)
        assert trained.ask(sample, DURATION) == expected
        if sample.task == FREE_FORM:
            (row,) = (row for row in rows if row["vid"] in str(sample.video_path))
            assert asked == questions(row)["what"]


def test_claims_and_cited_frames_are_about_the_shape_while_it_is_in_sight(to_imitate: list[Sample]) -> None:
    ious = []
    for sample in to_imitate:
        ((start, end),) = sample.spans
        truth = {key.time: next(iter(sample.key_items[key.idx].values()))[0] for key in sample.key_frames}
        for claim in parse(sample.reasoning or "").claims:
            assert claim.time is not None
            assert claim.box is not None
            ious.append(iou(convert(truth[claim.time], NORMALISED, FRAME_SPACE), claim.box))
        if sample.task == CITED:
            cited = cited_frames(sample.reasoning or "", len(SHOWN.times))
            assert cited is not None
            assert cited.invalid == 0
            assert all(start <= SHOWN.times[index] <= end for index in cited.valid)
            assert confidence(sample.reasoning or "") in (0.5, 0.6, 0.7, 0.8, 0.9)
    assert min(ious) > 0.3


def test_the_answers_earn_what_v_star_gives_for_hurried_boxes(
    rows: list[dict[str, Any]], to_imitate: list[Sample]
) -> None:
    """The completions of the warm start are right in words, and near the truth in time and place."""
    texts = {f"{n}/{kind}": "" for n in range(len(rows)) for kind in questions(rows[0])}
    for sample in to_imitate:
        n = next(n for n, row in enumerate(rows) if row["vid"] in str(sample.video_path))
        kinds = [kind for kind, text in questions(rows[n]).items() if text == sample.question]
        texts |= {f"{n}/{kind}": sample.reasoning or "" for kind in kinds}
    answered = [n for n in range(len(rows)) if texts[f"{n}/what"] and texts[f"{n}/when"] and texts[f"{n}/where"]]
    assert answered
    numbers = report(
        [rows[n] for n in answered],
        {f"{place}/{kind}": texts[f"{n}/{kind}"] for place, n in enumerate(answered) for kind in questions(rows[n])},
    )
    assert numbers["acc"] == 1
    assert 0.7 < numbers["chain1"]["m_tiou"] < 1
    assert 0.5 < numbers["chain1"]["m_viou"] < 0.9


@pytest.mark.parametrize(
    ("recipe", "task", "paid"),
    [
        ("open_o3", FREE_FORM, {"ans_acc", "format"}),
        ("open_o3", TEMPORAL_QA, {"ans_tiou", "format", "thk_temporal_segment"}),
        ("open_o3", SPATIO_TEMPORAL_QA, {"ans_acc", "format", "thk_spatial", "thk_temporal_point"}),
        ("rler", FREE_FORM, {"acc", "format", "frame_sensitive", "think_transparency"}),
        ("rler", TEMPORAL_QA, {"acc", "format", "frame_sensitive", "think_transparency"}),
    ],
)
def test_the_rewards_of_the_baselines_are_paid(
    recipe: str, task: str, paid: set[str], to_reward: list[Sample], to_imitate: list[Sample]
) -> None:
    name = "evidence_claim_rler" if recipe == "rler" else "evidence_claim_open_o3"
    graph = RewardGraph(load_config(TrainConfig, EXPERIMENT / f"{name}.yaml").reward)
    form, kind = (CITED if recipe == "rler" else CLAIMS), {FREE_FORM: "what", TEMPORAL_QA: "when"}.get(task, "where")
    pairs = [
        (sample, imitated.reasoning or "")
        for sample in to_reward
        for imitated in to_imitate
        if sample.task == task and imitated.video_path == sample.video_path
        if (imitated.task, kind_of(imitated)) == (form, kind)
    ]
    assert pairs
    for sample, text in pairs:
        view = GroupView(sample, (text,) * 2, (parse(text),) * 2, SHOWN, lengths=(50, 50))
        paid_terms = {term for term, values in graph.score(view).paid.items() if values[0] > 0}
        assert paid_terms == paid
