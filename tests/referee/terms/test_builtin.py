"""Properties of every built-in term, for arbitrary completions."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from views import sample, view

from evidence.errors import BadInput
from evidence.types import KeyFrame, Sample
from referee.terms import BUILTIN
from referee.terms.view import needs_of

REWARD_DOC = Path(__file__).parents[3] / "docs" / "reward.md"
TASKS = ("visual QA", "temporal-spatial free-form QA", "temporal QA", "temporal QA (MCQ)", "General video QA MCQ")
TASKS += ("numerical", "regression", "OCR", "multiple choice", "boolean", "temporal grounding", "mine")
ANSWERS = ("B", "5", "a red cup", "[2.0, 6.0]", "B\n[6.0, 2.0]", "<obj>cup</obj><box>[20,20,60,80]</box>", "\n", "nan")
BELOW_0 = ("anti_repetition", "overlong")
PIECES = ["<think>", "</think>", "<answer>", "</answer>", "<keyframes>", "</keyframes>", "<obj>", "</obj>", "<box>"]
PIECES += [
    "</box>",
    "<t>",
    "</t>",
    "[1,2,30,40]",
    "[3, 5]",
    "2.0",
    "s to ",
    "Correct Option:",
    "B",
    "cup ",
    "1e999",
    " ",
]
CLAIMS = [
    "<obj>cup</obj>",
    "<box>[10,10,30,40]</box>",
    "<box>[9,9,9,9]</box>",
    "at<t>2.0</t>s",
    "<t>6</t>s to <t>2</t>s",
]

loose = st.lists(st.sampled_from(PIECES), max_size=25).map("".join) | st.text(max_size=40)
claims = st.lists(st.sampled_from(CLAIMS), max_size=4).map("".join)
texts = loose | st.builds("<think>{}</think><keyframes>{}</keyframes><answer>{}</answer>".format, claims, loose, claims)
boxes = st.tuples(*[st.floats(-1, 2)] * 4)
samples = st.builds(
    sample,
    st.sampled_from(TASKS),
    st.sampled_from(ANSWERS) | st.text(min_size=1, max_size=9),
    spans=st.lists(st.tuples(st.floats(-5, 20), st.floats(-5, 20)), max_size=2).map(tuple),
    options=st.sampled_from([(), ("A. a", "B. b")]),
    key_frames=st.just((KeyFrame("3", 2.0), KeyFrame("9", 6.0))),
    key_items=st.dictionaries(
        st.sampled_from(["3", "9"]), st.dictionaries(st.text(), st.lists(boxes, max_size=2).map(tuple), max_size=2)
    ),
    duration=st.none() | st.floats(0, 20),
    image_size=st.none() | st.just((200, 100)) | st.just((0, 0)),
)


def group(of: Sample, completions: list[str], progress: float = 0.0):
    n = len(completions)
    terms = {"acc": np.linspace(0, 1, n, dtype=np.float32)}
    full = view(of, *completions, progress=progress, lengths=(700,) * n, judgements=(0.5,) * n, terms=terms)
    full = replace(full, max_tokens=768)
    return replace(full, contrast=full)


@pytest.mark.parametrize("name", BUILTIN)
def test_the_docs_define_every_term(name: str):
    assert f"\n| `{name}` |" in REWARD_DOC.read_text()


@settings(max_examples=300)
@given(of=samples, completions=st.lists(texts, min_size=1, max_size=4), progress=st.floats(0, 1))
def test_values_are_finite_and_in_range_for_any_text(of: Sample, completions: list[str], progress: float):
    view = group(of, completions, progress)
    for name, term in BUILTIN.items():
        low, high = (-1, 0) if name in BELOW_0 else (0, 1)
        values = term(view)
        assert len(values) == len(completions), name
        assert all(low <= value <= high + 1e-9 for value in values), (name, values)
        assert values == term(view), name


@settings(max_examples=300)
@given(of=samples, completions=st.lists(texts, min_size=1, max_size=4))
def test_terms_do_not_depend_on_inputs_that_they_do_not_declare(of: Sample, completions: list[str]):
    """Without a declared input a term returns NaN, or raises BadInput that names what a recorded completion lacks."""
    view = group(of, completions)
    bare = replace(view, frames=None, lengths=(), judgements=(), contrast=None)
    for name, term in BUILTIN.items():
        try:
            values = term(bare)
        except BadInput:
            assert needs_of(term) or (name == "accuracy" and of.task == "visual QA"), name
            continue
        assert all(math.isnan(value) or -1 <= value <= 1 + 1e-9 for value in values), (name, values)
        if not needs_of(term) and not (name == "temporal_iou_boundary" and not of.duration):
            assert values == term(view), name
