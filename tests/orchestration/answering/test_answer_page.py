"""The page of an answer: complete, self-contained, and safe whatever a model or a user wrote."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_reader import ReadPage
from PIL import Image
from replies import CITED, CLAIMS, INFO, answered, elected, reply

from evaluation.election.majority import Majority
from evaluation.election.perturbations import View
from evaluation.election.rler import Rler
from evidence.drawing import CLAIM_COLOURS
from evidence.types import Verdict
from orchestration.answering.answers import Answered
from orchestration.answering.page import Source, page

SOURCE = Source("clip.mp4", "policy", "referee")
HOSTILE = "<script>alert('x')</script><img src=x onerror=\"y\"> ' \" & <b> </pre></main> \u202e\x1b[31m"


def rendered(answer: Answered, side: int = 56) -> str:
    frame = np.full((side, side, 3), 120, np.uint8)
    return page(answer, dict.fromkeys(answer.replies[0].frames, frame), SOURCE)


def allowed(text: str) -> ReadPage:
    """The page, after checking that nothing in it loads or runs anything."""
    read = ReadPage(text)
    tags = {tag for tag, _ in read.tags}
    assert not tags & {"script", "link", "iframe", "object", "embed", "form", "base", "svg"}
    assert [tag for tag, _ in read.tags].count("main") == 1
    assert not any(name.startswith("on") for _, attributes in read.tags for name in attributes)
    assert all(
        source.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) for source in read.values("src")
    )
    assert all(re.fullmatch(r"#frame-\d+", link) for link in read.values("href"))
    assert "url(" not in text
    assert "http:" not in text
    assert "https:" not in text
    return read


def test_claims_are_linked_to_their_frames_in_their_colours():
    read = allowed(rendered(answered(reply(CLAIMS))))
    assert read.values("id") == ["frame-3", "frame-5"]
    assert {"#frame-3", "#frame-5"} == set(read.values("href"))
    links = [attributes for tag, attributes in read.tags if attributes.get("class") == "claim"]
    assert len(links) == 2  # two boxes of one object are one piece of text
    assert CLAIMS in re.sub(r"\d+(?=<obj>)", "", read.text)  # without the claims' numbers
    assert "bottom left" in read.text
    assert "[20, 20, 40, 40]" in read.text
    assert "5.0 s" in read.text  # the frame that is shown
    assert "5.2 s" in read.text  # the time that is claimed


def test_boxes_are_drawn_on_the_frames_that_are_named():
    read = allowed(rendered(answered(reply(CLAIMS))))
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))) for source in read.values("src")
    ]
    drawn = [[bool((image == colour).all(axis=2).sum()) for colour in CLAIM_COLOURS] for image in pictures]
    assert drawn == [[True, False, False, False], [False, True, True, False]]
    assert pictures[0].shape == (280, 280, 3)


def test_large_frames_are_not_enlarged_and_are_photographs():
    large = answered(reply(CLAIMS))
    info = replace(INFO, size=(448, 252))
    text = page(Answered("?", info, large.replies), dict.fromkeys((3, 5), np.zeros((252, 448, 3), np.uint8)), SOURCE)
    assert all(source.startswith("data:image/jpeg") for source in allowed(text).values("src"))


def test_numbered_key_frames_are_linked_to_the_frames_that_were_shown():
    read = allowed(rendered(answered(reply(CITED))))
    assert read.values("id") == ["frame-3", "frame-5"]
    assert read.values("href") == ["#frame-3", "#frame-5"]  # frame 9 was not shown
    assert CITED in read.text
    few = reply("<keyframes>[1, 3]</keyframes>", view=View(frames=4))
    assert allowed(rendered(answered(few))).values("href") == ["#frame-2", "#frame-7"]


def test_verdicts_and_the_reasons_of_claims_that_were_not_judged():
    text = rendered(answered(reply(CLAIMS, lambda n: Verdict(0.875, 0.25) if n == 0 else None)))
    read = allowed(text)
    assert "0.88" in read.text
    assert "no verdict" in read.text
    text = "<think><obj>cup</obj><box>[5,5,5,9]</box>at<t>1.0</t>s <obj>x</obj></think>"
    read = allowed(rendered(answered(reply(text, lambda n: Verdict(1, 1)))))
    assert "degenerate box" in read.text
    assert "no box" in read.text
    assert "wrote no answer" in read.text


def test_an_answer_without_evidence_says_so():
    assert "cites no frame" in allowed(rendered(answered(reply("<answer>yes</answer>")))).text


def test_an_election_is_explained():
    read = allowed(rendered(elected(Majority(candidates=3), CLAIMS, CITED, CITED)))
    assert "Elected by majority: “B” has 2.00 of 3.00 votes (3 candidates counted, 2 more cancelled" in read.text
    assert "It leads “bottom left” (1.00) by 33% of all votes." in read.text
    assert [tag for tag, _ in read.tags].count("details") == 3
    tie = allowed(rendered(elected(Majority(candidates=2), CLAIMS, CITED)))
    assert "“B” has as many; of equal answers, the first given wins." in tie.text
    assert "Nothing is elected by rler" in allowed(rendered(elected(Rler(candidates=2), "", ""))).text


HOSTILE_TEXTS = {
    "in an object": f"<think><obj>{HOSTILE}</obj><box>[1,1,9,9]</box>at<t>1.0</t>s</think><answer>a</answer>",
    "in the answer": f"<think></think><answer>{HOSTILE}</answer>",
    "everywhere": f"{HOSTILE}<think>{HOSTILE}</think>{HOSTILE}<keyframes>[1,{HOSTILE}]</keyframes>",
    "a tag cut by a claim": "<scr<think><obj>a</obj><box>[1,1,9,9]</box>at<t>1</t>s</think>ipt>alert(1)</script>",
}


@pytest.mark.parametrize("text", HOSTILE_TEXTS.values(), ids=HOSTILE_TEXTS)
def test_hostile_text_is_shown_and_never_becomes_a_part_of_the_page(text):
    hostile = elected(Rler(candidates=2), text, text)
    answer = Answered(HOSTILE, INFO, hostile.replies, hostile.outcome)
    frame = np.zeros((56, 56, 3), np.uint8)
    result = page(answer, dict.fromkeys(range(8), frame), Source(HOSTILE, HOSTILE, HOSTILE))
    read = allowed(result)
    assert "\x1b" not in result
    assert "\u202e" not in result
    assert read.text.count("<script>alert('x')</script><img src=x onerror=\"y\">") >= 4  # title, question, file, models
    result.encode()


PIECES = ("<think>", "</think>", "<obj>", "</obj>", "<box>", "</box>", "[1,2,30,40]", "<t>", "</t>", "1.0", "99", "-5")
MORE = ("<answer>", "</answer>", "<keyframes>", "</keyframes>", "[0, 7]", "<script>", "'", '"', "&lt;", "\ud800", "\0")


@given(st.lists(st.sampled_from(PIECES + MORE), max_size=30))
def test_any_text_gives_a_sound_page_that_holds_all_of_it(pieces):
    text = "".join(pieces)
    read = allowed(rendered(answered(reply(text))))
    shown = re.sub("[\ud800\0]", "\ufffd", text)
    assert all(word in read.text for word in re.findall("[a-z]+", shown))
