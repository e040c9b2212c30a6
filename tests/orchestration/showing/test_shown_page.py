"""The page of `ser data show`: complete, and safe whatever a dataset holds."""

from __future__ import annotations

import re
from dataclasses import replace

from page_reader import ReadPage

from evidence.types import FrameInfo, KeyFrame, Sample
from orchestration.showing.labels import LabelledBox
from orchestration.showing.page import page
from orchestration.showing.shown import SPECIAL, TEXT, VISUAL, Piece, Seen, ShownFrame, ShownSample, Source

HOSTILE = "<script>alert('x')</script><img src=x onerror=\"y\"> ' \" & {{ 7 * 7 }} {% x %} </pre></main> \u202e\x1b[31m"
SHOWN_AS = HOSTILE.replace("\u202e\x1b", "\ufffd\ufffd")
INFO = FrameInfo("key", (0.0, 1.5), (420, 224), (640, 360), 2.0)
PROMPT = (Piece(SPECIAL, "<|im_start|>", 1), Piece(TEXT, "\nuser\n  A  b: ", 6), Piece(VISUAL, "<|pad|>", 1200))
SOURCE = Source("data.json", "1 of 9 samples", "policy", "contract: {}")


def shown(text: str) -> ShownSample:
    sample = Sample(
        *(text, text, text, text, text),
        video_path=text,
        options=(text, "B"),
        reasoning=text,
        spans=((1.0, 2.5),),
        part=(0.5, 9.0),
    )
    key = KeyFrame(text, 1.25)
    frames = (
        ShownFrame(0.0, "frames/key/001.png", None, (), ()),
        ShownFrame(1.5, "frames/key/002.png", "boxes/4/002.png", (LabelledBox(text, 1, (1, 2, 30, 40)),), (key,)),
    )
    prompt = (*PROMPT, Piece(TEXT, text, 9))
    return ShownSample(4, sample, (text,), Seen(INFO, frames, (KeyFrame(text, 9.0),), prompt))


def test_hostile_text_stays_text_wherever_it_stands() -> None:
    hostile = page([shown(HOSTILE)], Source(*[HOSTILE] * 4))
    calm = page([shown("calm")], Source(*["calm"] * 4))
    read, expected = ReadPage(hostile), ReadPage(calm)
    assert [tag for tag, _ in read.tags] == [tag for tag, _ in expected.tags]
    assert [sorted(attributes) for _, attributes in read.tags] == [sorted(names) for _, names in expected.tags]
    assert read.text.count(SHOWN_AS) == expected.text.count("calm") > 18
    assert not {"script", "link", "iframe", "object", "form", "base"} & {tag for tag, _ in read.tags}


def test_the_page_names_only_images_beside_it() -> None:
    read = ReadPage(page([shown(HOSTILE)], SOURCE))
    assert read.values("src") == ["frames/key/001.png", "boxes/4/002.png"]
    assert read.values("href") == ["#sample-4", *("frames/key/001.png", "boxes/4/002.png", "frames/key/002.png")]
    assert "sample-4" in read.values("id")
    assert "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'" in read.values("content")
    assert "url(" not in page([], SOURCE)


def test_the_prompt_stands_there_as_it_is() -> None:
    text = ReadPage(page([shown("calm")], SOURCE)).text
    assert "\n<|im_start|>\nuser\n  A  b: <|pad|> × 1,200calm\n" in text
    assert "1,216 tokens, 1,200 of them" in re.sub(r"\s+", " ", text)


def test_labels_times_and_facts_are_told() -> None:
    text = re.sub(r"\s+", " ", ReadPage(page([shown("calm")], SOURCE)).text)
    for told in (
        *("1.00 s to 2.50 s", "0.50 s to 9.00 s", "2.00 s, 640 × 360 pixels", "2 frames of 420 × 224 pixels"),
        *("1.50 s frame 2", "labelled key frame calm, 1.25 s", "1 calm [1, 2, 30, 40]", "calm at 9.00 s"),
    ):
        assert told in text


def test_a_sample_that_cannot_be_read_has_its_reason_and_no_frames() -> None:
    unread = replace(shown("calm"), seen=None, problems=("cannot be read: no such file",))
    read = ReadPage(page([unread], SOURCE))
    assert "cannot be read: no such file" in read.text
    assert read.values("src") == []
    assert "Prompt" not in read.text


def test_small_frames_are_enlarged_in_sharp_pixels_and_drawn_ones_smoothly() -> None:
    seen = shown("calm").seen
    assert seen is not None
    for size, sharp in (((56, 56), [True, False]), ((420, 224), [True, False]), ((420, 240), [False, False])):
        sample = replace(shown("calm"), seen=replace(seen, info=replace(INFO, size=size)))
        images = [attributes for tag, attributes in ReadPage(page([sample], SOURCE)).tags if tag == "img"]
        assert [image.get("class") == "sharp" for image in images] == sharp
