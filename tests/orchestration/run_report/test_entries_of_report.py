"""What the evidence browser shows of a completion: its pieces, claims, verdicts and labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from made_run import claim, completion, scored_group

from evaluation.heldout import ClipRecord
from evidence.grammar import parse
from evidence.lines import AppendedLines, records
from evidence.types import FrameInfo, KeyFrame, Sample
from orchestration.reporting.samples import write_samples
from orchestration.run_report.entries import UNKNOWN, heldout_entry, pieces, training_entry
from orchestration.run_report.recorded import Group

INFO = FrameInfo("key", (0.0, 1.0, 2.0, 3.0), (56, 56), (112, 112), 4.0)
SAMPLE = Sample(
    "clip",
    "test",
    "some task",
    "Where is the red square?",
    "top left",
    video_path="a.mp4",
    image_size=(112, 112),
    key_frames=(KeyFrame("0", 1.0),),
    key_items={"0": {"red square": ((0.0, 0.0, 0.5, 0.5),)}},
    duration=4.0,
)
TWO_BOXES = "<obj>red square</obj><box>[0,0,28,28]</box><box>[5,5,9,9]</box>at<t>1.2</t>s"


def recorded(tmp_path: Path, *texts: str, sample: Sample = SAMPLE) -> Group:
    """A group as training writes it."""
    lines = AppendedLines(tmp_path / "samples.jsonl")
    write_samples(lines, 4, scored_group(2, sample, INFO, texts, [float(n) for n in range(len(texts))]))
    lines.close()
    return Group(4, 2, sample.id, tuple(records(tmp_path / "samples.jsonl")))


def test_claims_have_the_recorded_verdicts_and_the_iou_with_the_label(tmp_path: Path) -> None:
    invalid = "<obj>red square</obj>at<t>1.0</t>s"  # not scored, unlike the complete one of that name
    text = completion(invalid, claim("red square", "0,0,28,28", 1.2), claim("cup", "7,7,7,20", 2.0), claim("x", time=3))
    entry = training_entry(0, recorded(tmp_path, text, "prose"), SAMPLE, "resized")
    assert (entry.step, entry.task, entry.question, entry.answer) == (4, "some task", SAMPLE.question, "top left")
    assert entry.labels == {1: ((0.0, 0.0, 28.0, 28.0),)}
    unplaced, square, cup, named_x = entry.completions[0].claims
    assert (unplaced.score, unplaced.flag) == (None, "no box")
    assert (square.relevance, square.localization, square.frame, square.iou, square.flag) == (0.9, 0.8, 1, 1.0, None)
    assert abs((square.score or 0) - 0.9 * 0.8 * (1 - (square.temporal_penalty or 0))) < 1e-3
    assert (cup.relevance, cup.score, cup.flag) == (None, 0.0, "degenerate box")
    assert named_x.iou is None, "its frame has no label"
    assert entry.apart == abs((square.score or 0) - 1.0)
    assert entry.spread == 1.0
    assert entry.completions[1].claims == ()


def test_a_run_without_claims_in_its_reward_shows_them_without_verdicts(tmp_path: Path) -> None:
    group = recorded(tmp_path, completion(claim("red square", "0,0,28,28", 1.0)))
    group = replace(group, lines=tuple(line | {"claims": []} for line in group.lines))
    (shown,) = training_entry(0, group, SAMPLE, "resized").completions[0].claims
    assert (shown.score, shown.relevance, shown.iou) == (None, None, 1.0)
    (shown,) = training_entry(0, group, SAMPLE, "normalised").completions[0].claims
    assert shown.box == (0.0, 0.0, 28 * 56, 28 * 56)


def test_without_the_dataset_only_task_and_labels_are_unknown(tmp_path: Path) -> None:
    entry = training_entry(0, recorded(tmp_path, completion(claim("red square"))), None, "resized")
    assert (entry.task, entry.question, entry.labels, entry.apart) == (UNKNOWN, SAMPLE.question, {}, None)
    assert entry.completions[0].claims[0].score == 0.72


def test_cited_key_frames_are_those_that_were_shown(tmp_path: Path) -> None:
    text = "<think>seen</think><keyframes>[1, 3, 9]</keyframes><answer>a</answer>"
    assert training_entry(0, recorded(tmp_path, text), SAMPLE, "resized").completions[0].cited == (1, 3)


def test_a_held_out_clip_has_the_iou_of_each_valid_claim() -> None:
    text = completion(claim("red square", "0,0,28,28"), "<obj>lamp</obj>at<t>1.0</t>s", claim("cup"))
    record = ClipRecord("clip", text, np.nan, 1.0, 0.5, 3, 2, 0.2, (1.0, np.nan), INFO.size, INFO.times)
    entry = heldout_entry(1, 7, record, SAMPLE, "resized")
    assert [shown.iou for shown in entry.completions[0].claims] == [1.0, None, None]
    assert entry.completions[0].terms == {"reward": None, "accuracy": 1.0, "IoU": 0.5}
    assert (entry.run, entry.step, entry.sample, entry.question) == (1, 7, "clip", SAMPLE.question)


def test_several_boxes_of_an_object_are_one_piece_with_all_numbers() -> None:
    text = completion(TWO_BOXES, claim("cup"))
    assert [numbers for _, numbers in pieces(text, parse(text).claims)] == [(), (1, 2), (), (3,), ()]


TAGS = ("<think>", "</think>", "<obj>", "</obj>", "<box>", "</box>", "[1,2,30,40]", "<t>", "</t>", "1.0", "-5")
STRANGE = ("<answer>", "</answer>", "<script>", "\u202e", "\u200b", "\U0001f600", "\ud800", "\0", "\n")


@given(st.lists(st.sampled_from(TAGS + STRANGE), max_size=30))
def test_the_pieces_are_the_whole_visible_text(parts: list[str]) -> None:
    text = "".join(parts)
    cut: Any = pieces(text, parse(text).claims)
    hidden = dict.fromkeys(map(ord, "\u202e\u200b\ud800\0"), "\ufffd")
    assert "".join(piece for piece, _ in cut) == text.translate(hidden)
