"""V-STaR's rules for one sample, each with a value worked out by hand."""

from __future__ import annotations

import math

import pytest
from vstar_rows import box, reasons, report, row

NAN = float("nan")
HALF = [0, 0, 10, 5]  # IoU .5 with the truth


def viou(spatial, bboxes=..., **options):
    """m_vIoU of chain 1 of a single sample."""
    changes = {} if bboxes is ... else {"bboxes": bboxes}
    return report(row(answer_spatial=spatial, **changes), **options)["chain1"]["m_viou"]


def test_temporal_iou_has_the_hull_as_denominator():
    overlapping = report(row(answer_temporal=[15, 25]))
    assert overlapping["chain1"]["m_tiou"] == pytest.approx(5 / 15)
    assert report(row(answer_temporal=[30, 40]))["chain1"]["m_tiou"] == 0


def test_a_reversed_answer_earns_nothing_and_is_counted():
    scored = report(row(answer_temporal=[20, 10]))
    assert scored["chain1"]["m_tiou"] == 0
    assert reasons(scored) == {"answer_temporal is reversed: temporal IoU 0": 1}


def test_a_missing_time_earns_nothing_in_either_chain():
    scored = report(row(answer_temporal=None, answer_temporal_2=None))
    assert (scored["chain1"]["m_tiou"], scored["chain2"]["m_tiou"]) == (0, 0)


def test_thresholds_of_recall_are_reached_by_equality():
    scored = report(row(answer_temporal=[10, 13], answer_temporal_2=[10, 15]))
    assert scored["chain1"]["r1"] == {"0.3": 1, "0.5": 0, "0.7": 0}
    assert scored["chain2"]["r1"] == {"0.3": 1, "0.5": 1, "0.7": 0}


def test_visual_iou_is_the_mean_over_the_true_seconds():
    assert viou({"12": HALF, "13": [0, 0, 10, 10]}) == pytest.approx(0.75)
    assert viou({"12": HALF}) == pytest.approx(0.25)  # a missing second is 0
    assert viou({"12": HALF, "13": HALF, "99": [0, 0, 10, 10]}) == pytest.approx(0.5)  # another second is ignored


def test_the_best_of_several_boxes_counts():
    assert viou({"12": [[50, 50, 60, 60], HALF], "13": [HALF]}) == pytest.approx(0.5)
    assert viou({"12": [[50, 50, 60, 60]] * 3 + [HALF], "13": [HALF]}) == pytest.approx(0.5)  # four, as a box has sides


def test_seconds_are_compared_as_text():
    assert viou({"12.0": [0, 0, 10, 10], "13": HALF}) == pytest.approx(0.25)
    none = report(row(answer_spatial={"12.0": [0, 0, 10, 10], "13.0": [0, 0, 10, 10]}))
    assert none["chain1"]["m_viou"] == 0
    assert reasons(none) == {"a spatial answer names none of the annotated seconds: scored 0": 1}
    assert viou({"12.0": [0, 0, 10, 10]}, bboxes=[box(12.0, 0, 0, 10, 10)]) == 1  # as the truth is written


def test_a_top_level_list_of_boxes_is_zero():
    scored = report(row(answer_spatial=[[0, 0, 10, 10], [0, 0, 10, 10]]))
    assert scored["chain1"]["m_viou"] == 0
    assert scored["counts"]["unparsable"] == 1


@pytest.mark.parametrize("spoilt", [[0, 0, 10], ["0", 0, 10, 10], {"xmin": 0}, "box", [NAN, 0, 10, 10], None, []])
def test_a_box_that_is_not_four_numbers_is_zero(spoilt):
    assert viou({"12": spoilt, "13": [0, 0, 10, 10]}) == pytest.approx(0.5)


def test_older_files_key_a_box_by_second_and_frame():
    old = [{"12_360": {"xmin": 0, "ymin": 0, "xmax": 10, "ymax": 10}}]
    assert viou({"12": HALF}, bboxes=old) == pytest.approx(0.5)
    assert viou({"12": HALF}, bboxes={"12_360": {"xmin": 0, "ymin": 0, "xmax": 10, "ymax": 10}}) == pytest.approx(0.5)


def test_average_precision_is_the_share_of_seconds_at_each_threshold():
    scored = report(row(answer_spatial={"12": HALF, "13": [0, 0, 10, 10]}))
    assert scored["chain1"]["ap"] == {"0.1": 1, "0.3": 1, "0.5": 1, "0.7": 0.5, "0.9": 0.5}


def test_boxes_are_compared_as_written_unless_converted():
    # The model saw frames of half the size and wrote the right box in their pixels.
    halved = row(answer_spatial={"12": [0, 0, 5, 5], "13": [0, 0, 5, 5]}, input_shape=[320, 180])
    assert report(halved)["chain1"]["m_viou"] == pytest.approx(0.25)
    assert report(halved, boxes="converted")["chain1"]["m_viou"] == 1
    unknown = row(answer_spatial={"12": [0, 0, 5, 5]})
    scored = report(halved, unknown, boxes="converted")
    assert scored["chain1"]["m_viou"] == pytest.approx(0.5)
    assert any("input_shape" in reason for reason in reasons(scored))


@pytest.mark.parametrize(
    ("recorded", "right", "failed"),
    [
        *(
            (3, 1, 0),
            (2, 1, 0),
            (1, 0, 0),
            (10, 1, 0),
            ("10", 1, 0),
            ("3.", 0, 1),
            (-1, 0, 1),
            (-2, 0, 0),
            (None, 0, 1),
        ),
        *((2.0, 1, 0), (2.5, 0, 1), (NAN, 0, 1), (True, 0, 1), (math.inf, 0, 1)),
    ],
)
def test_two_or_more_is_right_and_a_reply_must_be_an_integer(recorded, right, failed):
    scored = report(row(VQA_score=recorded))
    assert scored["acc"] == right
    assert scored["counts"]["judge_failures"] == failed
    assert scored["judge"] == "recorded"


def test_a_judge_is_asked_only_without_a_recorded_score():
    scored = report(row(), row(VQA_score=...), row(VQA_score=..., answer_vqa="a drum"))
    assert scored["acc"] == pytest.approx(2 / 3)
    assert scored["counts"]["judged"] == 2
    assert scored["judge"] == "recorded and exact"


def test_open_o3_reads_an_empty_time_again():
    empty = row(answer_temporal=[], answer_temporal_pre="<answer>0:10 - 0:20</answer>")
    assert report(empty)["chain1"]["m_tiou"] == 0
    assert report(empty, mode="open_o3")["chain1"]["m_tiou"] == 1
    assert report(row(answer_temporal=None), mode="open_o3")["chain1"]["m_tiou"] == 0
    assert report(row(answer_temporal=[]), mode="open_o3")["chain1"]["m_tiou"] == 0


def test_every_fault_is_named_with_its_sample():
    truth = {"12": [0, 0, 10, 10], "13": [0, 0, 10, 10]}
    scored = report(
        row(),
        row(answer_temporal=[20, 10], answer_spatial=truth, question="second"),
        row(answer_temporal="soon", answer_temporal_2=["10", "20"], question="third"),
        row(answer_spatial=[[0, 0, 10, 10]], answer_spatial_2="left", question="fourth"),
        row(answer_spatial={"12": [0, 0], "13": "box"}, question="fifth"),
        row(answer_spatial={"99": [0, 0, 10, 10]}, question="sixth"),
        row(timestamps=[20, 20], question="seventh"),
    )
    assert {(fault["reason"], fault["count"], fault["first"]) for fault in scored["faults"]} == {
        ("answer_temporal is reversed: temporal IoU 0", 1, "sample 1"),
        ("answer_temporal is a time that is not [start, end]: scored 0", 1, "sample 2"),
        ("answer_temporal_2 is a time whose ends are not both numbers: scored 0", 1, "sample 2"),
        ("answer_spatial is not an object of seconds (a list of boxes): scored 0", 1, "sample 3"),
        ("answer_spatial_2 is not an object of seconds: scored 0", 1, "sample 3"),
        ("answer_spatial is without four numbers to a box: scored 0", 1, "sample 4"),
        ("a spatial answer names none of the annotated seconds: scored 0", 1, "sample 5"),
        ("its timestamps are reversed or equal: temporal IoU 0", 1, "sample 6"),
    }
    assert scored["counts"]["unparsable"] == 5


def test_an_answer_of_one_moment_is_not_reversed():
    assert report(row(answer_temporal=[15, 15]))["faults"] == []


@pytest.mark.parametrize("mode", ["official", "open_o3", "strict"])
def test_an_unanswered_sample_is_neither_rated_nor_judged(mode):
    scored = report(row(), row(answer_vqa="", question="second"), mode=mode)  # with a recorded rating of 3
    assert scored["acc"] == 0.5
    assert [sample["rating"] for sample in scored["samples"]] == [3, None]
    unrated = report(row(), row(answer_vqa="", VQA_score=..., question="second"), mode=mode)
    assert (unrated["counts"]["judged"], unrated["counts"]["judge_failures"]) == (0, 0)


def test_each_side_of_a_box_is_converted_by_its_own_factor():
    # The truth is [40, 20, 80, 60] in a video of 640 x 360; the model saw 320 x 90.
    truth, seen = box(12, 40, 20, 80, 60), {"12": [20, 5, 40, 15]}
    changes = {"bboxes": [truth], "answer_spatial": seen, "input_shape": [320, 90]}
    assert report(row(**changes), boxes="converted")["chain1"]["m_viou"] == 1


@pytest.mark.parametrize(
    "size",
    [
        {"input_shape": [320]},
        {"input_shape": [320, 180, 3]},
        {"input_shape": [320, 0]},
        {"input_shape": ["320", 180]},
        {"input_shape": [320, NAN]},
        {"input_shape": "320x180"},
        {"input_shape": [320, 180], "width": None},
        {"input_shape": [320, 180], "height": 0},
        {"input_shape": [320, 180], "width": -640},
    ],
)
def test_boxes_of_an_unknown_scale_are_unparsable(size):
    known = row(input_shape=[640, 360])
    scored = report(known, row(**size, question="second"), known, boxes="converted")
    reason = "in pixels of frames whose size (input_shape, width, height) is not given"
    assert reasons(scored)[f"answer_spatial is {reason}: scored 0"] == 1
    assert scored["counts"]["unparsable"] == 2
    assert scored["chain1"]["m_viou"] == pytest.approx(2 / 3)


def test_frames_of_one_pixel_are_a_scale():
    tiny = row(input_shape=[1, 1], width=1, height=1)
    assert report(tiny, boxes="converted")["chain1"]["m_viou"] == 1


@pytest.mark.parametrize(
    "bboxes",
    [
        [{"12_360": [0, 0, 10, 10]}],  # the sides as a list
        {"12_360_1": {"xmin": 0, "ymin": 0, "xmax": 10, "ymax": 10}},
        [{"timestamp": 12, "xmin": 0, "ymin": 0, "xmax": 10, "ymax": 10}],
    ],
)
def test_the_forms_of_a_true_box(bboxes):
    assert viou({"12": HALF}, bboxes=bboxes) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bboxes": []}, "bboxes is empty: there is no box to compare with"),
        ({"bboxes": 5}, "bboxes must be a list of boxes"),
        ({"bboxes": [5]}, "a box of bboxes must be an object with timestamp, xmin, ymin, xmax, ymax"),
        *(
            ({"bboxes": bboxes}, "a box of bboxes lacks timestamp, xmin, ymin, xmax or ymax")
            for bboxes in (
                [{"12_360": [0, 0, 10]}],
                [{"12_360": [0, 0, 10, 10, 10]}],
                [{"12_360": 5}],
                [{"timestamp": 12}],
                [{"timestamp": None, "xmin": 0, "ymin": 0, "xmax": 10, "ymax": 10}],
                [{"xmin": 0, "ymin": 0, "xmax": 10, "ymax": 10}],
                [{"timestamp": 12, "xmin": 0, "ymin": 0, "xmax": 10}],
            )
        ),
        ({"bboxes": [box(12, "x", 0, 1, 1)]}, "xmin must be a number, not 'x'"),
        ({"timestamps": [1]}, "timestamps must be [start, end] in seconds, not [1]"),
        ({"vid": None, "answer": None}, "not a V-STaR result: it lacks vid, answer"),
    ],
)
def test_a_row_without_its_truth_is_left_out_with_the_reason(changes, reason):
    scored = report(row(), row(**changes))
    assert scored["faults"] == [{"reason": f"left out: {reason}", "count": 1, "first": "sample 1"}]
    assert [sample["id"] for sample in scored["samples"]] == ["0"]
    unscorable = report(row(), 5)["faults"]
    assert [fault["reason"] for fault in unscorable] == ["left out: not an object; a V-STaR sample is one"]
