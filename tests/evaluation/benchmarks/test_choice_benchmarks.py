"""Multiple-choice benchmarks: how their rows are read, and their strict and official rules, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scoring import benchmark, ids, placed, report, score

from evaluation.benchmarks.videomme import ask, subtitles_at
from evaluation.choices import (
    answer_text,
    first_letter,
    response_text,
    stated_letter,
    without_labels,
)
from evaluation.reading import PlacedRow

VIDEOMME = {
    "video_id": "001",
    "videoID": "fFjv93ACGo8",
    "duration": "short",
    "domain": "Knowledge",
    "task_type": "Counting Problem",
    "question_id": "001-1",
    "question": "How many?",
    "options": ["A. One.", "B. Two.", "C. Three.", "D. Four."],
    "answer": "C",
}
WORLDSENSE = {
    "index": 7,
    "video": "abc",
    "question": "What is heard?",
    "candidates": "['A. a drum', 'B. a dog', 'C. rain', 'D. a horn']",
    "answer": "B",
    "domain": "Music",
    "task_type": "Audio Recognition",
    "duration": "1-2min",
    "audio_class": "['Speech', 'Music']",
}
PERCEPTION = {
    "video_name": "video_1",
    "question_id": 3,
    "question": "What does he do?",
    "options": ["sits", "stands", "lies"],
    "answer_id": "1",
    "area": "physics",
    "reasoning": "descriptive",
}
LVBENCH = {
    "key": "Cm73ma6Ibcs",
    "qa": [
        {
            "uid": "28",
            "question": "What year?\n(A) 1636\n(B) 1366\n(C) 1363\n(D) 1633",
            "answer": "D",
            "question_type": ["key information retrieval", "entity recognition"],
        }
    ],
}
LONG = {
    "id": "86CxyhFV9MI_0",
    "video_id": "86CxyhFV9MI",
    "question": "What is shown?",
    "candidates": ["a cup", "a dog", "a hat"],
    "correct_choice": 1,
    "duration_group": 15,
    "question_category": "S2E",
}
MVBENCH = {"video": "a.mp4", "question": "How many?", "candidates": ["3", "4", "2"], "answer": "4"}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        *[
            (text, "B")
            for text in ("B", "b", "B.", "(B)", "[B]", "Option B", "B. a dog", "(B) a dog", "a dog", "A dog.")
        ],
        ("B. it is a dog", "B"),  # a label with words that name no other option
        *[(text, None) for text in ("", "B or C", "B. a cup", "The answer is B", "E", "Cannot tell", "dog")],
    ],
)
def test_the_strict_reading_takes_plain_statements_only(answer, letter):
    assert stated_letter(answer, ["a cup", "a dog", "a hat", "a pen"]) == letter


def test_an_option_that_is_a_number_may_be_stated():
    assert stated_letter("4", ["3", "4", "2"]) == "B"
    assert stated_letter("5", ["3", "4", "2"]) is None


@pytest.mark.parametrize(
    ("text", "scored"),
    [
        ("<think>B</think><answer>C</answer>", (1, "read")),
        ("<answer>C. Three.</answer>", (1, "read")),
        ("C", (1, "read")),
        ("<think>It is C", (0, "unparsable")),
        ("The answer is C", (0, "unparsable")),
    ],
)
def test_the_strict_protocol_never_guesses(text, scored):
    assert score("videomme", VIDEOMME, text) == scored


@pytest.mark.parametrize(
    ("text", "scored"),
    [
        ("The answer is C", (1, "read")),
        ("Cannot tell", (1, "read")),  # the first capital letter of A to D
        ("Answer: C", (1, "read")),  # the A of "Answer:" is not taken
        ("An apple, so C", (0, "read")),
        ("nothing", (0, "unparsable")),
    ],
)
def test_videomme_takes_the_first_letter_officially(text, scored):
    assert score("videomme", VIDEOMME, text, "official") == scored


def test_videomme_counts_only_readable_answers_officially():
    rows = [VIDEOMME | {"question_id": f"001-{n}"} for n in (1, 2, 3)]
    texts = {"001-1": "C", "001-2": "none of them"}
    official, strict = (report("videomme", rows, texts, protocol) for protocol in ("official", "strict"))
    assert official["acc"] == 1
    assert strict["acc"] == pytest.approx(1 / 3)
    assert strict["counts"] | {"read": 1, "unparsable": 1, "unanswered": 1, "left_out": 0} == strict["counts"]
    assert official["counts"]["left_out"] == 2
    assert list(strict["by_duration"]) == ["short"]


def test_videomme_rows_may_be_nested_by_video():
    video = {key: VIDEOMME[key] for key in ("video_id", "duration", "domain")}
    question = {key: VIDEOMME[key] for key in ("question_id", "task_type", "question", "options", "answer")}
    assert ids("videomme", [video | {"questions": [question, question | {"question_id": "001-2"}]}]) == [
        "001-1",
        "001-2",
    ]


def test_videomme_subtitles_of_sampled_frames_only():
    srt = (
        "1\n00:00:01,000 --> 00:00:02,500\n<font color='white'>first</font>\n\n"
        "2\n00:00:02,500 --> 00:00:03,000\nbetween frames\n\n3\n00:01:00,000 --> 00:01:01,000\nlast\nline\n"
    )
    assert subtitles_at(srt, [1.0, 2.0, 3.0, 60.5]) == "first\nlast line"
    question = next(benchmark("videomme").read(placed([VIDEOMME])[0]))
    assert ask(question).startswith("How many?\nA. One.\n")
    assert ask(question, "first").startswith("Subtitles of the video:\nfirst\nHow many?")


@pytest.mark.parametrize(
    ("text", "scored"),
    [
        ("nothing here", (0, "guessed")),  # "A"
        ("(B) rather than (C), so (B)", (1, "read")),  # the bracketed letter that comes last
        ("B or C", (1, "read")),  # without brackets the first of the alphabet
        ("i think that it must be a dog", (1, "read")),  # by the option's text, in six words or more
        ("it is a dog", (0, "guessed")),
    ],
)
def test_worldsense_official(text, scored):
    assert score("worldsense", WORLDSENSE, text, "official") == scored


def test_worldsense_counts_under_each_audio_class():
    scored = report(
        "worldsense", [WORLDSENSE, WORLDSENSE | {"index": 8, "audio_class": "['Music']"}], {"7": "B", "8": "A"}
    )
    assert scored["by_audio_class"]["Speech"]["acc"] == 1
    assert scored["by_audio_class"]["Music"] == {"n": 2, "acc": 0.5}


def test_perception_test_compares_the_index():
    assert score("perception_test", PERCEPTION, "B") == (1, "read")
    assert score("perception_test", PERCEPTION, "stands") == (1, "read")
    assert score("perception_test", PERCEPTION, "It is B, I think", "official") == (1, "read")
    assert score("perception_test", PERCEPTION, "AB", "official") == (0, "unparsable")
    nested = {"video_1": {"metadata": {}, "mc_question": [{**PERCEPTION, "id": 0}]}}
    assert [row.key for row in placed(nested)] == ["video_1"]
    question = next(benchmark("perception_test").read(placed(nested)[0]))
    assert (question.id, question.answer, question.groups["area"]) == ("video_1/0", "B", ("physics",))


def test_lvbench_reads_options_out_of_the_question():
    question = next(benchmark("lvbench").read(placed([LVBENCH])[0]))
    assert question.text == "What year?"
    assert question.options == ("1636", "1366", "1363", "1633")
    assert score("lvbench", LVBENCH, "1633") == (1, "read")
    assert score("lvbench", LVBENCH, "(D) 1633", "official") == (1, "read")
    assert score("lvbench", LVBENCH, "Definitely A", "official") == (1, "read")  # its first character
    assert score("lvbench", LVBENCH, "", "official") == (0, "unparsable")
    assert set(report("lvbench", [LVBENCH], {"28": "D"})["by_type"]) == set(LVBENCH["qa"][0]["question_type"])


def test_longvideobench_guesses_officially_and_reproducibly():
    assert score("longvideobench", LONG, "Best option: B", "official") == (1, "read")
    rows = [LONG | {"id": f"v_{n}"} for n in range(300)]
    guessed = report("longvideobench", rows, {f"v_{n}": "none" for n in range(300)}, "official")
    assert guessed["counts"]["guessed"] == 300
    assert 0.2 < guessed["acc"] < 0.5  # one in three
    assert guessed == report("longvideobench", rows, {f"v_{n}": "none" for n in range(300)}, "official")
    assert report("longvideobench", rows, {"v_0": "none"})["acc"] == 0


def test_longvideobench_options_in_columns():
    row = {key: value for key, value in LONG.items() if key != "candidates"}
    row |= {"option0": "a cup", "option1": "a dog", "option2": "N/A", "option3": "N/A", "option4": "N/A"}
    assert next(benchmark("longvideobench").read(placed([row])[0])).options == ("a cup", "a dog")


@pytest.mark.parametrize(
    ("text", "strict", "official"),
    [
        ("(B) 4", (1, "read"), (1, "read")),
        ("B", (1, "read"), (1, "read")),
        ("4", (1, "read"), (0, "read")),
        ("b. four", (1, "read"), (1, "read")),
        ("The answer is (B)", (0, "unparsable"), (0, "read")),
        ("", (0, "unparsable"), (0, "unparsable")),
    ],
)
def test_mvbench(text, strict, official):
    assert score("mvbench", MVBENCH, text) == strict
    assert score("mvbench", MVBENCH, text, "official") == official


def test_mvbench_is_the_mean_of_its_tasks():
    rows = [
        *placed([MVBENCH, MVBENCH, MVBENCH], "action_count.json"),
        PlacedRow(Path("object_shuffle.json"), 0, MVBENCH),
    ]
    texts = {"action_count/0": "B", "object_shuffle/0": "B"}
    scored = report("mvbench", rows, texts)
    assert scored["acc"] == pytest.approx(2 / 4)
    assert scored["mean_of_tasks"] == pytest.approx((1 / 3 + 1) / 2)
    assert scored["headline"] == ["mean_of_tasks"]


@pytest.mark.parametrize("name", ["videomme", "worldsense", "perception_test", "lvbench", "longvideobench", "mvbench"])
def test_prompts_show_all_options(name):
    rows = {
        "videomme": VIDEOMME,
        "worldsense": WORLDSENSE,
        "perception_test": PERCEPTION,
        "lvbench": LVBENCH,
        "longvideobench": LONG,
        "mvbench": MVBENCH,
    }
    question = next(iter(benchmark(name).read(placed([rows[name]])[0])))
    asked = benchmark(name).ask(question)
    assert all(option in asked for option in (question.text, *question.options))


@pytest.mark.parametrize(
    ("lines", "notes"),
    [
        ([{"timestamp": [9.0, 13.0], "text": "hello"}], {2: "\nhello\n"}),  # its middle, 11 - 10 s, is frame 1's time
        ([{"timestamp": [13.0, 13.2], "text": "short"}], {}),  # widened to a second, and still after all frames
        ([{"timestamp": [11.8, 12.0], "text": "short"}], {2: "\nshort\n"}),
        ([{"timestamp": [13.5, None], "text": "last"}], {}),  # until the video's end, and no frame is left
        (
            [{"start": "00:00:10.5", "end": "00:00:11.1", "line": n} for n in ("one", "two")],
            {1: "\none\ntwo\n"},
        ),
    ],
)
def test_longvideobench_interleaves_lines_that_are_shown_at_a_frame(lines, notes):
    row = LONG | {"subtitle_path": "a_en.json", "starting_timestamp_for_subtitles": 10, "duration": 14}
    question = next(benchmark("longvideobench").read(placed([row])[0]))
    subtitles = benchmark("longvideobench").subtitles
    assert subtitles.file(question) == "a_en.json"
    assert subtitles.show(question, json.dumps(lines), [0.0, 1.0, 2.0]).notes == notes


@pytest.mark.parametrize(
    ("text", "strict", "official"),
    [
        ("<think>A</think><answer> B </answer>", "B", "B"),
        ("<think>B", None, "<think>B"),
        ("<answer>B", None, "<answer>B"),
        (" B ", "B", " B "),
    ],
)
def test_what_readers_of_answers_are_given(text, strict, official):
    assert (answer_text(text), response_text(text)) == (strict, official)


def test_labels_are_taken_off_once_and_only_if_all_options_have_theirs():
    assert without_labels(["A. A. Milne", "(B) a cup"]) == ("A. Milne", "a cup")
    assert without_labels(["A. a cup ", " a plate "]) == ("A. a cup", "a plate")


def test_removed_phrases_join_what_is_around_them():
    assert first_letter("The answer is B", "ABC", ("The answer is",)) == "B"
    assert first_letter("Best Answer: xB", "ABX", ("Best Answer: ",)) == "B"
