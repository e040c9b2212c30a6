"""V-STaR's means: denominators, modes, AM and LGM, intervals, and rows that cannot be scored."""

from __future__ import annotations

import json
import math

import pytest
from vstar_rows import placed, reasons, report, row

from evaluation.faults import Faults
from evaluation.judging import rating_prompt
from evaluation.vstar.prompts import questions, result
from evaluation.vstar.report import judge_prompts
from evidence.errors import BadInput
from evidence.plain import dumps

UNANSWERED = {"answer_vqa": "", "VQA_score": ...}
WRONG = {"VQA_score": 0}


def test_unanswered_samples_leave_the_means_of_the_ious_but_not_acc():
    scored = report(row(), row(**WRONG, answer_temporal=[10, 15]), row(**UNANSWERED))
    assert scored["n"] == 3
    assert scored["acc"] == pytest.approx(1 / 3)
    assert scored["chain1"]["m_tiou"] == pytest.approx((1 + 0.5) / 2)
    assert scored["chain1"]["r1"]["0.5"] == 1
    assert scored["counts"]["unanswered"] == 1


def test_within_a_class_every_denominator_is_the_answered_samples():
    scored = report(row(), row(**WRONG, answer_temporal=[10, 15]), row(**UNANSWERED))
    for classes, name in (("by_length", "short"), ("by_domain", "Sports")):
        own = scored[classes][name]
        assert own["n"] == 3
        assert own["acc"] == pytest.approx(1 / 2)
        assert own["chain1"]["combined"]["vqa_temporal"] == pytest.approx(1 / 2)
        assert own["chain1"]["m_tiou"] == pytest.approx(0.75)
    assert scored["chain1"]["combined"]["vqa_temporal"] == pytest.approx(1 / 3)


def test_a_missing_part_of_an_answered_sample_is_zero_and_stays_in():
    scored = report(row(), row(answer_temporal=..., answer_spatial=None))
    assert scored["chain1"]["m_tiou"] == pytest.approx(0.5)
    assert scored["chain1"]["m_viou"] == pytest.approx(0.5)
    assert scored["counts"]["missing"] == 2


def test_strict_divides_everything_by_all_samples():
    samples = [row(), row(**UNANSWERED, answer_temporal=[10, 15], answer_spatial=...)]
    scored = report(*samples, mode="strict")
    assert scored["acc"] == pytest.approx(1 / 2)
    assert scored["chain1"]["m_tiou"] == pytest.approx((1 + 0.5) / 2)  # the time is there, and counts
    assert scored["chain1"]["m_viou"] == pytest.approx(1 / 2)
    assert scored["by_length"]["short"]["acc"] == pytest.approx(1 / 2)
    assert report(*samples)["chain1"]["m_tiou"] == 1


def test_combined_counts():
    samples = [
        row(answer_temporal=[10, 13]),  # tIoU .3
        row(answer_temporal=[10, 12]),  # tIoU .2
        row(**WRONG),
        row(answer_spatial={"12": [0, 0, 10, 2]}),  # vIoU .1
        row(answer_spatial={"12": [0, 0, 10, 1.9]}),
    ]
    scored = report(*samples)
    assert scored["counts"]["chain1"] == {"vqa_temporal": 3, "vqa_spatial": 3, "temporal_spatial": 3, "all": 2}
    assert scored["counts"]["chain2"] == {"vqa_temporal": 4, "vqa_spatial": 4, "temporal_spatial": 5, "all": 4}
    assert scored["chain1"]["combined"]["all"] == pytest.approx(2 / 5)


def test_am_and_lgm_of_the_means():
    samples = [row(answer_temporal=[10, 15], answer_spatial={"12": [0, 0, 10, 10]}), row(**WRONG, answer_temporal=[])]
    scored = report(*samples)
    acc, tiou, viou = 1 / 2, 1 / 4, 3 / 4
    chain1 = scored["chain1"]
    assert (chain1["m_tiou"], chain1["m_viou"]) == (tiou, viou)
    assert chain1["am"] == pytest.approx((acc + tiou + viou) / 3)
    assert chain1["lgm"] == pytest.approx(-(math.log(0.5) + math.log(0.75) + math.log(0.25)) / 3)
    assert scored["mam"] == pytest.approx((chain1["am"] + scored["chain2"]["am"]) / 2)
    assert scored["mlgm"] == pytest.approx((chain1["lgm"] + scored["chain2"]["lgm"]) / 2)
    assert scored["mlgm"] >= scored["mam"]


def test_a_mean_of_one_is_clamped():
    scored = report(row())
    assert scored["mam"] == 1
    assert scored["mlgm"] == pytest.approx(-math.log(1e-12))


@pytest.mark.parametrize(
    ("frames", "length"), [(1799, "short"), (1800, "medium"), (5399, "medium"), (5400, "long"), ("x", "unknown")]
)
def test_length_classes(frames, length):
    assert list(report(row(frame_count=frames))["by_length"]) == [length]


def test_a_class_without_an_answered_sample_has_no_numbers():
    scored = report(row(), row(**UNANSWERED, domain=...))
    assert math.isnan(scored["by_domain"]["unknown"]["acc"])
    assert json.loads(dumps(scored))["by_domain"]["unknown"]["acc"] is None


def test_intervals_are_by_video():
    # Two videos, one all right and one all wrong: a resample's Acc is 0, .5 or 1.
    samples = [row(vid="a")] * 5 + [row(vid="b", **WRONG)] * 5
    interval = report(*samples, resamples=400)["ci95"]["acc"]
    assert interval == (0, 1)
    assert report(*[row(vid="a"), row(vid="a", **WRONG)] * 5, resamples=400)["ci95"]["acc"] == (0.5, 0.5)


def test_rows_that_cannot_be_scored_are_left_out_with_a_reason():
    scored = report(
        row(),
        5,
        {"question_id": "1", "options": []},
        row(timestamps=["a", 2]),
        row(bboxes=[{"timestamp": 1, "xmin": float("nan"), "ymin": 0, "xmax": 1, "ymax": 1}], question="other"),
        row(bboxes=[]),
        row(timestamps=["10", "20"], question="text for numbers"),
        row(),
    )
    assert scored["n"] == 3
    found = reasons(scored)
    assert sum(n for reason, n in found.items() if reason.startswith("left out")) == 5
    assert any("not a V-STaR result" in reason for reason in found)
    assert found["repeats an earlier sample: scored again, as the official script does"] == 1


def test_a_file_without_a_sample_that_can_be_scored_is_bad_input():
    with pytest.raises(
        BadInput, match="no sample can be scored; sample 0: left out: not a V-STaR result: it lacks vid"
    ):
        report({"question_id": "001-1", "answer": "A"})
    with pytest.raises(BadInput, match="input_shape"):
        report(row(), boxes="converted")


def test_reports_name_mode_boxes_and_judge():
    scored = report(row(), mode="open_o3")
    assert (scored["mode"], scored["boxes"], scored["judge"]) == ("open_o3", "as_written", "recorded")


def test_questions_are_told_the_earlier_truth():
    asked = questions(row(timestamps=[9.5, 12.5]))
    assert "30.00 seconds" in asked["when"]
    assert "[10, 11, 12]" in asked["where"]
    assert "2 boxes" in asked["where_2"]
    assert "12" not in asked["where_2"].replace('"12"', "")
    assert "640x360" in asked["when_2"]
    assert "[[0, 0, 10, 10], [0, 0, 10, 10]]" in asked["when_2"]


def test_a_written_result_reads_back_to_equal_numbers(tmp_path):
    texts = {
        "what": "<think>…</think><answer>A guitar.</answer>",
        "when": "From <t>10</t>s to <t>15</t>s",
        "where": '<answer>{"12": [0, 0, 5, 5]}</answer>',
        "where_2": "none",
        "when_2": "0:10 - 0:20",
    }
    annotation = {key: value for key, value in row(VQA_score=...).items() if not key.startswith("answer_")}
    written = result(annotation, texts, (320, 180))
    back = json.loads(json.dumps([written]))
    for options in ({}, {"mode": "open_o3"}, {"mode": "strict", "boxes": "converted"}):
        assert report(*back, **options) == report(written, **options)
    scored = report(written, mode="open_o3", boxes="converted")
    assert scored["acc"] == 1
    assert (scored["chain1"]["m_tiou"], scored["chain1"]["m_viou"]) == (0.5, 0.5)
    assert (scored["chain2"]["m_tiou"], scored["chain2"]["m_viou"]) == (1, 0)


def test_a_report_has_the_keys_that_readers_of_it_expect():
    scored = report(row(), row(**UNANSWERED, question="second"))
    assert (scored["benchmark"], scored["headline"]) == ("vstar", ["mlgm"])
    assert [sample["id"] for sample in scored["samples"]] == ["0", "1"]
    assert (scored["counts"]["answered"], scored["counts"]["right"]) == (1, 1)
    assert report(row(**UNANSWERED))["judge"] == "none"
    assert report(row(VQA_score=...))["judge"] == "exact"


def test_intervals_are_those_of_the_mode_in_the_classes_too():
    kinds = ({}, {**UNANSWERED, "answer_temporal": None}, WRONG)
    samples = [row(vid=n, question=n, **kinds[n % 3]) for n in range(24)]
    official, strict = (report(*samples, mode=mode, resamples=50) for mode in ("official", "strict"))
    for scored in (official, strict):
        classes = [scored, scored["by_length"]["short"], scored["by_domain"]["Sports"]]
        assert all(of["ci95"].keys() == {"acc", "chain1", "chain2", "mam", "mlgm"} for of in classes)
    assert strict["by_length"]["short"]["ci95"] == strict["by_domain"]["Sports"]["ci95"] == strict["ci95"]
    assert official["ci95"]["chain1"]["m_tiou"] == official["by_length"]["short"]["ci95"]["chain1"]["m_tiou"]
    assert official["ci95"]["acc"] != official["by_length"]["short"]["ci95"]["acc"]
    assert strict["chain1"]["m_tiou"] == strict["by_length"]["short"]["chain1"]["m_tiou"] == pytest.approx(2 / 3)
    assert official["by_length"]["short"]["chain1"]["m_tiou"] == 1
    assert report(*samples, resamples=51)["ci95"] != report(*samples, resamples=50)["ci95"]
    assert "ci95" not in report(*samples)["by_domain"]["Sports"]


def test_a_language_model_is_asked_once_about_each_answer_without_a_rating():
    rows = [
        row(),
        row(VQA_score=..., answer_vqa="a drum"),
        row(VQA_score=..., question="What else?", answer="a harp"),
        row(**UNANSWERED),
        5,
    ]
    prompts = judge_prompts(placed(*rows))
    assert prompts == [
        rating_prompt("What is it?", "a guitar", "a drum"),
        rating_prompt("What else?", "a harp", "A guitar."),
    ]
    assert judge_prompts(placed(*rows), mode="strict") == prompts
    with pytest.raises(BadInput, match="input_shape"):
        judge_prompts(placed(*rows), boxes="converted")
    scored = report(*rows, judge="m", replies={prompts[0]: "2", prompts[1]: "about 3"})
    assert [sample["rating"] for sample in scored["samples"]] == [3, 2, None, None]
    assert (scored["judge"], scored["counts"]["judged"], scored["counts"]["judge_failures"]) == (
        "recorded and m",
        2,
        1,
    )


@pytest.mark.parametrize("key", ["vid", "question", "temporal_question", "timestamps"])
def test_a_sample_repeats_another_if_video_questions_and_time_are_equal(key):
    other = row(**{key: [11, 20] if key == "timestamps" else "another"})
    assert reasons(report(row(), other)) == {}
    repeats = report(row(), other, row(domain="Music"))["faults"]
    assert [(fault["count"], fault["first"]) for fault in repeats] == [(1, "sample 2")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "lax"}, "--mode = lax: must be one of official, open_o3, strict"),
        ({"boxes": "wide"}, "--boxes = wide: must be one of as_written, converted"),
        (
            {"boxes": "converted"},
            "--boxes converted: no sample says how large its frames were; add input_shape, [width, height] of the "
            "frames that the model saw, or compare boxes as_written",
        ),
    ],
)
def test_what_cannot_be_scored_is_named(options, message):
    for asking in (report, lambda *rows, **more: judge_prompts(placed(*rows), **more)):
        with pytest.raises(BadInput) as refused:
            asking(row(), **options)
        assert str(refused.value) == message


def test_a_file_without_samples_has_no_fault_to_name():
    with pytest.raises(BadInput) as refused:
        report()
    assert str(refused.value) == (
        "no sample can be scored; give a V-STaR result file, the annotation with answers added"
    )


def test_faults_of_reading_are_reported_with_those_of_scoring():
    faults = Faults()
    faults.add("a line that is not JSON is left out", "a.jsonl: line 3")
    assert reasons(report(row(timestamps=[20, 10]), faults=faults)) == {
        "a line that is not JSON is left out": 1,
        "its timestamps are reversed or equal: temporal IoU 0": 1,
    }
