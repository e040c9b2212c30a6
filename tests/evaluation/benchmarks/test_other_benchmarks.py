"""VideoMMMU, TempCompass, VSI-Bench and TVGBench: their rules, by hand."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from scoring import benchmark, ids, placed, report, score

from evaluation.benchmarks.vsi_bench import OFFICIALLY_TOLERATED, TASKS, mean_relative_accuracy
from evaluation.mmmu import is_right, letter_of
from evaluation.reading import PlacedRow

LETTERS = {"id": "validation_Art_Theory_3", "question": "Which?", "question_type": "multiple-choice", "answer": "J"}
LETTERS |= {"options": [f"option {n}" for n in range(10)]}
OPEN = {"id": "test_Math_1", "question": "How much?", "question_type": "open", "answer": "12.5", "options": []}
VSI = {"id": 0, "dataset": "arkitscenes", "scene_name": "41069025", "question": "How many chairs?"}
VSI |= {"question_type": "object_counting", "ground_truth": "4", "options": None}
NEAR = VSI | {
    "id": 1,
    "question_type": "object_rel_direction_easy",
    "ground_truth": "B",
    "options": ["A. left", "B. right"],
}
TVG = {"path": "videos/a.mp4", "question": "a person sits.", "answer": "10-20", "duration": 40}
CAPTIONS = "Which caption matches?\nCaption A: A car turns left\nCaption B: A car turns right"
MATCHING = {"video_id": "1", "dim": "direction", "question": CAPTIONS, "answer": "Caption B: A car turns right"}
CHOICE = {"video_id": "1", "dim": "direction", "question": "Where?\nA. left\nB. right", "answer": "B. right"}
YES_NO = {"video_id": "1", "dim": "direction", "question": "Does it turn?", "answer": "no"}
CAPTIONING = {
    "video_id": "1",
    "dim": "direction",
    "question": "Describe it.",
    "mc_question": "Where?",
    "mc_answer": "B. right",
}


def track(row, name="Adaptation"):
    return PlacedRow(Path(f"VideoMMMU/{name}/test.jsonl"), 0, row)


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("B", "B"),
        ("The answer is B.", "B"),  # the full stop is stripped; a space follows
        ("A. no, rather B. yes", "B"),  # the last
        ("(A) or (B)", "B"),
        ("it must certainly be the second of these: a dog", "B"),
        ("a dog", None),  # too short for the text of an option
        ("", None),
    ],
)
def test_letters_by_mmmu(response, letter):
    assert letter_of(response, "ABC", ["a cup", "a dog", "a hat"]) == letter


@pytest.mark.parametrize(
    ("response", "truth", "right"),
    [
        ("12.50", "12.5", True),
        ("The result is 12.499", "12.5", True),  # to two decimals
        ("The result is 12.49", "12.5", False),
        ("1,250", "1250", True),
        ("x = 3 = 12.5", "12.5", True),
        ("it is a Red circle", "red circle", True),
        ("circle", "red circle", False),
        ("the answer is x", "x", True),
        ("wax", "x", False),  # a single letter must stand beside a space
        ("", "12.5", False),
    ],
)
def test_open_answers_by_mmmu(response, truth, right):
    assert is_right(response, truth) == right


def test_videommmu_tracks_and_kinds():
    assert score("videommmu", track(LETTERS), "J") == (1, "read")
    assert score("videommmu", track(LETTERS), "I think it is J.", "official") == (1, "read")
    assert score("videommmu", track(LETTERS), "I think it is J.") == (0, "unparsable")
    assert score("videommmu", track(OPEN), "<answer>about 12.5 m</answer>") == (1, "read")
    rows = [track(LETTERS), track(OPEN), track(LETTERS, "Perception")]
    texts = {"Adaptation/validation_Art_Theory_3": "J", "Perception/validation_Art_Theory_3": "A", "test_Math_1": ""}
    strict, official = (report("videommmu", rows, texts, protocol) for protocol in ("strict", "official"))
    assert {name: numbers["acc"] for name, numbers in strict["by_track"].items()} == {
        "Adaptation": 0.5,
        "Perception": 0,
    }
    assert official["by_track"]["Adaptation"]["acc"] == 1  # an empty completion is left out
    assert set(strict["by_subject"]) == {"Art_Theory", "Math"}


def test_videommmu_needs_to_know_the_track():
    with pytest.raises(ValueError, match="track"):
        next(iter(benchmark("videommmu").read(placed([LETTERS])[0])))
    tracks = (track(LETTERS, name) for name in ("Perception", "Adaptation"))
    hints = [benchmark("videommmu").ask(next(iter(benchmark("videommmu").read(row)))) for row in tracks]
    assert "Ignore the quiz" in hints[0]
    assert "at its end" in hints[1]


@pytest.mark.parametrize(
    ("value", "truth", "accuracy"),
    [(4, 4, 1), (3, 4, 0.6), (4.4, 4, 0.9), (6, 4, 0.1), (6.1, 4, 0), (0, 4, 0), (0, 0, 1), (1, 0, 0)],
)
def test_mean_relative_accuracy(value, truth, accuracy):
    # A quarter off reaches the thresholds .5 to .75: six of ten. Half off reaches .5 alone.
    assert mean_relative_accuracy(value, truth) == pytest.approx(accuracy)


def test_an_error_of_a_fifth_reaches_its_threshold_except_officially():
    # 1 - .8 is a little below .2; the official script compares them as they are.
    assert mean_relative_accuracy(6, 5) == pytest.approx(0.7)
    assert mean_relative_accuracy(6, 5, OFFICIALLY_TOLERATED) == pytest.approx(0.6)


def test_vsi_bench_reads_numbers_and_letters():
    assert score("vsi_bench", VSI, "3 chairs") == (0.6, "read")
    assert score("vsi_bench", VSI, "about 3") == (0, "unparsable")
    assert score("vsi_bench", VSI, "4. I count", "official") == (1, "read")
    assert score("vsi_bench", VSI, "nan", "official") == (0, "unparsable")
    assert score("vsi_bench", NEAR, "B") == (1, "read")
    assert score("vsi_bench", NEAR, "b. right", "official") == (1, "read")
    assert score("vsi_bench", NEAR, "The right", "official") == (0, "unparsable")


def test_vsi_bench_is_the_mean_of_tasks_and_direction_the_mean_of_levels():
    rows = [VSI, NEAR, NEAR | {"id": 2}, NEAR | {"id": 3, "question_type": "object_rel_direction_hard"}]
    scored = report("vsi_bench", rows, {"0": "3", "1": "B", "2": "A", "3": "A"})
    assert scored["task"]["object_counting"] == pytest.approx(0.6)
    assert scored["task"]["object_rel_direction"] == pytest.approx((0.5 + 0) / 2)
    assert scored["overall"] == pytest.approx((0.6 + 0.25) / 2)
    assert len(TASKS) == 8


def test_tvgbench_recall_is_strictly_above():
    assert score("tvgbench", TVG, "<answer>10 to 20</answer>") == (1, "read")
    scored = report("tvgbench", [TVG, TVG], {"0": "10 to 15", "1": "12 s - 15 s"})
    assert scored["m_iou"] == pytest.approx((0.5 + 0.3) / 2)
    assert scored["r1"] == {"0.3": 0.5, "0.5": 0, "0.7": 0}


@pytest.mark.parametrize(
    ("text", "strict", "official"),
    [
        ("<answer>15 to 25</answer>", 1 / 3, 1 / 3),
        ("<think>1 to 2</think><answer>10 and 20</answer>", 0, 1),
        ("10 to 20 or 0 to 40", 0, 10 / 40),  # officially the last
        ("starts at 10, ends at 20", 0, 1),  # officially the first two numbers
        ("20 to 10", 0, 0),
        ("at 10", 0, 0),
    ],
)
def test_tvgbench_readings(text, strict, official):
    assert score("tvgbench", TVG, text)[0] == pytest.approx(strict)
    assert score("tvgbench", TVG, text, "official")[0] == pytest.approx(official)


def test_tvgbench_reads_long_runs_of_digits_in_time():
    start = time.process_time()
    assert score("tvgbench", TVG, "1" * 20_000, "official") == (0, "unparsable")
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("row", "text", "strict", "official"),
    [
        (CHOICE, "B", (1, "read"), (1, "read")),
        (CHOICE, "B. right", (1, "read"), (1, "read")),
        (CHOICE, "A) left", (0, "read"), (0, "read")),
        (CHOICE, "It goes right", (0, "unparsable"), (0, "unjudged")),
        (YES_NO, "No, it does not", (1, "read"), (1, "read")),
        (YES_NO, "nothing turns", (0, "unparsable"), (1, "read")),
        (YES_NO, "Yes", (0, "read"), (0, "read")),
        (MATCHING, "Caption B", (1, "read"), (1, "read")),
        (MATCHING, "B", (1, "read"), (1, "read")),
        (MATCHING, "Caption A: A car turns left", (0, "read"), (0, "read")),
        (MATCHING, "A car turns right", (1, "read"), (1, "read")),
        (MATCHING, "the second", (0, "unparsable"), (0, "unjudged")),
    ],
)
def test_tempcompass_formats(row, text, strict, official):
    assert score("tempcompass", row, text) == strict
    assert score("tempcompass", row, text, "official") == official


@pytest.mark.parametrize(
    ("reply", "scored"),
    [
        ("Reasoning: it turns right\nAnswer: B. right", (1, "judged")),
        ("Answer: A. left", (0, "judged")),
        ("Answer: B. right or A. left", (0, "judged")),
        ("Answer: None of the choices are correct", (0, "judged")),
        (None, (0, "unjudged")),
    ],
)
def test_tempcompass_captions_are_judged(reply, scored):
    assert score("tempcompass", CAPTIONING, "A car turns right.", reply=reply) == scored


def test_tempcompass_recorded_verdicts_and_formats():
    assert score("tempcompass", CHOICE, "It goes right", "official", reply="Correct") == (1, "judged")
    assert score("tempcompass", CHOICE, "It goes right", "official", reply="Incorrect. …") == (0, "judged")
    nested = PlacedRow(
        Path("multi-choice.json"), 0, {"direction": [{"question": "Where?", "answer": "B. right"}]}, "1042"
    )
    assert [question.id for question in benchmark("tempcompass").read(nested)] == ["multi-choice/1042/direction/0"]
    assert ids("tempcompass", [CHOICE, YES_NO, MATCHING, CAPTIONING]) == [
        "multi-choice/0",
        "yes_no/1",
        "caption_matching/2",
        "captioning/3",
    ]
    lines = [
        {"id": "yes_no/0", "text": "no"},
        {"id": "multi-choice/1", "text": "A"},
        {"id": "multi-choice/2", "text": "A"},
    ]
    scored = report("tempcompass", [YES_NO, CHOICE, CHOICE], lines)
    assert scored["acc"] == pytest.approx(1 / 3)
    assert scored["mean_of_formats"] == pytest.approx(1 / 2)
