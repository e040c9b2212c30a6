from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from evidence.geometry import convert, coverage, iou
from evidence.types import NORMALISED
from referee.trust.labelled_claims import (
    WEIGHTS,
    ClaimMaker,
    asked_phrase,
    localization_label,
    make_claims,
    moments_of,
    relevance_label,
)


@pytest.fixture(scope="module")
def labelled(samples, info, phrases):
    """(sample, claim) of some 1,600 claims."""
    return [
        (sample, one)
        for number, sample in enumerate(samples)
        for one in make_claims(sample, info, np.random.default_rng(number), 8, phrases)
    ]


def visible(sample, claim, info):
    """phrase -> box in pixels at the claim's time."""
    idx = next(key.idx for key in sample.key_frames if key.time == claim.time)
    items = sample.key_items[idx]
    return {phrase: convert(boxes[0], NORMALISED, info.resized_space) for phrase, boxes in items.items()}


def test_every_stratum_is_made_and_every_sample_gives_its_number(labelled, samples):
    assert {one.stratum for _, one in labelled} == set(WEIGHTS)
    assert len(labelled) == 8 * len(samples)


def test_labels_follow_the_rule(labelled, info):
    for sample, one in labelled:
        there = visible(sample, one.claim, info)
        covered = coverage(there.get(asked_phrase(sample), (0, 0, 0, 0)), one.claim.box)
        fit = iou(there.get(one.claim.phrase, (0, 0, 0, 0)), one.claim.box)
        assert one.relevance == (2 if covered >= 0.5 else 1 if covered >= 0.2 else 0)
        assert one.localization == (2 if fit >= 0.7 else 1 if fit >= 0.4 else 0)


@pytest.mark.parametrize(
    ("stratum", "labels"),
    [
        ("exact", {(2, 2)}),
        ("jittered", {(2, 2)}),
        ("iou .4-.7", {(2, 1), (1, 1)}),
        ("iou .2-.4", {(1, 0), (2, 0)}),
        ("other, own name", {(0, 2), (1, 2)}),
        ("other, asked name", {(0, 0), (1, 0)}),
        ("background", {(0, 0)}),
        ("absent", {(0, 0)}),
        ("wrong name", {(2, 0)}),
        ("no name", {(2, 0), (1, 0)}),
    ],
)
def test_strata_hold_what_they_say(labelled, info, stratum, labels):
    of_it = [(sample, one) for sample, one in labelled if one.stratum == stratum]
    assert {(one.relevance, one.localization) for _, one in of_it} <= labels
    for sample, one in of_it:
        there = visible(sample, one.claim, info)
        if stratum.startswith("other"):
            others = [box for phrase, box in there.items() if phrase != asked_phrase(sample)]
            assert max(iou(box, one.claim.box) for box in others) >= 0.7
        if stratum == "absent":
            assert asked_phrase(sample) not in there
        if stratum in ("wrong name", "no name"):
            assert one.claim.phrase not in there


def test_no_name_is_put_on_boxes_of_every_tightness_and_says_every_kind_of_nothing(labelled):
    of_it = [(sample, one) for sample, one in labelled if one.stratum == "no name"]
    tightness = Counter(np.digitize(one.asked_iou, (0.4, 0.7, 0.9)).item() for _, one in of_it)
    assert min(tightness[band] for band in range(4)) > 0.15 * len(of_it)
    kinds = Counter(
        "question" if one.claim.phrase in sample.question
        else "list" if "," in one.claim.phrase
        else "name in noise" if asked_phrase(sample) in one.claim.phrase
        else "noise"
        for sample, one in of_it
    )  # fmt: skip
    assert min(kinds[kind] for kind in ("question", "list", "name in noise", "noise")) > 0.1 * len(of_it)


def test_words_that_are_a_name_after_all_are_not_made_as_none(samples, info):
    """A part of the question can be the name of something in sight, where names are long."""
    name = "the man in red"
    items = {idx: {name: boxes} for idx, at in samples[0].key_items.items() for boxes in at.values()}
    sample = replace(samples[0], question=f"{name} is", key_items=items)
    maker = ClaimMaker(sample, info, np.random.default_rng(0), name, moments_of(sample, info), ())
    nameless = {one.claim.phrase for one in (maker.make("no name") for _ in range(500)) if one is not None}
    assert "the man in red is" in nameless
    assert not nameless & {name, "man in red"}


def test_shares_of_the_quality_bar(labelled, info):
    relevance = Counter(one.stratum.startswith("other") for _, one in labelled if one.relevance == 0)
    localization = Counter(one.stratum == "iou .2-.4" for _, one in labelled if one.localization == 0)
    assert relevance[True] > 1.2 * relevance[False]
    assert localization[True] > localization[False]
    assert sum(one.stratum == "jittered" for _, one in labelled) > 100


def test_boxes_are_what_a_referee_sees(labelled, info):
    for _, one in labelled:
        x1, y1, x2, y2 = one.claim.box
        assert 0 <= x1 < x2 <= info.size[0]
        assert 0 <= y1 < y2 <= info.size[1]
        assert all(v == int(v) for v in one.claim.box)


def test_equal_seeds_give_equal_claims(samples, info, phrases):
    first, second = (make_claims(samples[3], info, np.random.default_rng(1), 6, phrases) for _ in range(2))
    assert first == second


def test_nothing_is_made_of_a_sample_that_cannot_be_labelled(samples, info):
    rng = np.random.default_rng(0)
    assert make_claims(replace(samples[0], question="What happens?"), info, rng, 4) == []
    assert make_claims(replace(samples[0], key_items={}), info, rng, 4) == []


def test_the_longest_phrase_in_the_question_is_asked(samples):
    items = {"0": {"man": ((0, 0, 1, 1),), "man in red": ((0, 0, 1, 1),), "dog": ((0, 0, 1, 1),)}}
    assert asked_phrase(replace(samples[0], question="Where is the Man in red?", key_items=items)) == "man in red"


def test_labels_at_their_thresholds():
    assert relevance_label((0, 0, 10, 5), [(0, 0, 10, 10)]) == 2
    assert relevance_label((0, 0, 10, 2), [(0, 0, 10, 10)]) == 1
    assert relevance_label((0, 0, 10, 1), [(0, 0, 10, 10)]) == 0
    assert localization_label((0, 0, 10, 7), [(0, 0, 10, 10)]) == 2
    assert localization_label((0, 0, 10, 4), [(50, 50, 60, 60), (0, 0, 10, 10)]) == 1
    assert localization_label((0, 0, 10, 3), [(0, 0, 10, 10)]) == 0
    assert localization_label((0, 0, 10, 10), []) == 0
