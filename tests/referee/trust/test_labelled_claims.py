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
    """(sample, labelled claim) of about 1,600 claims."""
    return [
        (sample, entry)
        for number, sample in enumerate(samples)
        for entry in make_claims(sample, info, np.random.default_rng(number), 8, phrases)
    ]


def visible(sample, claim, info):
    """phrase -> box in pixels at the claim's time."""
    idx = next(key.idx for key in sample.key_frames if key.time == claim.time)
    items = sample.key_items[idx]
    return {phrase: convert(boxes[0], NORMALISED, info.resized_space) for phrase, boxes in items.items()}


def test_every_stratum_occurs_and_every_sample_gives_the_requested_number(labelled, samples):
    assert {entry.stratum for _, entry in labelled} == set(WEIGHTS)
    assert len(labelled) == 8 * len(samples)


def test_labels_follow_the_rule(labelled, info):
    for sample, entry in labelled:
        objects = visible(sample, entry.claim, info)
        covered = coverage(objects.get(asked_phrase(sample), (0, 0, 0, 0)), entry.claim.box)
        fit = iou(objects.get(entry.claim.phrase, (0, 0, 0, 0)), entry.claim.box)
        assert entry.relevance == (2 if covered >= 0.5 else 1 if covered >= 0.2 else 0)
        assert entry.localization == (2 if fit >= 0.7 else 1 if fit >= 0.4 else 0)


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
def test_strata_match_their_names(labelled, info, stratum, labels):
    members = [(sample, entry) for sample, entry in labelled if entry.stratum == stratum]
    assert {(entry.relevance, entry.localization) for _, entry in members} <= labels
    for sample, entry in members:
        objects = visible(sample, entry.claim, info)
        if stratum.startswith("other"):
            others = [box for phrase, box in objects.items() if phrase != asked_phrase(sample)]
            assert max(iou(box, entry.claim.box) for box in others) >= 0.7
        if stratum == "absent":
            assert asked_phrase(sample) not in objects
        if stratum in ("wrong name", "no name"):
            assert entry.claim.phrase not in objects


def test_no_name_covers_boxes_of_every_tightness_and_every_kind_of_words(labelled):
    members = [(sample, entry) for sample, entry in labelled if entry.stratum == "no name"]
    tightness = Counter(np.digitize(entry.asked_iou, (0.4, 0.7, 0.9)).item() for _, entry in members)
    assert min(tightness[band] for band in range(4)) > 0.15 * len(members)
    kinds = Counter(
        "question" if entry.claim.phrase in sample.question
        else "list" if "," in entry.claim.phrase
        else "name in noise" if asked_phrase(sample) in entry.claim.phrase
        else "noise"
        for sample, entry in members
    )  # fmt: skip
    assert min(kinds[kind] for kind in ("question", "list", "name in noise", "noise")) > 0.1 * len(members)


def test_no_name_never_uses_the_name_of_a_visible_object(samples, info):
    """Where names are long, a part of the question can be one."""
    name = "the man in red"
    items = {idx: {name: boxes} for idx, at in samples[0].key_items.items() for boxes in at.values()}
    sample = replace(samples[0], question=f"{name} is", key_items=items)
    maker = ClaimMaker(sample, info, np.random.default_rng(0), name, moments_of(sample, info), ())
    claims = [maker.make("no name") for _ in range(500)]
    nameless = {labelled.claim.phrase for labelled in claims if labelled is not None}
    assert "the man in red is" in nameless
    assert not nameless & {name, "man in red"}


def test_negatives_contain_enough_hard_cases(labelled, info):
    relevance = Counter(entry.stratum.startswith("other") for _, entry in labelled if entry.relevance == 0)
    localization = Counter(entry.stratum == "iou .2-.4" for _, entry in labelled if entry.localization == 0)
    assert relevance[True] > 1.2 * relevance[False]
    assert localization[True] > localization[False]
    assert sum(entry.stratum == "jittered" for _, entry in labelled) > 100


def test_boxes_are_whole_pixels_inside_the_frame(labelled, info):
    for _, entry in labelled:
        x1, y1, x2, y2 = entry.claim.box
        assert 0 <= x1 < x2 <= info.size[0]
        assert 0 <= y1 < y2 <= info.size[1]
        assert all(v == int(v) for v in entry.claim.box)


def test_equal_seeds_give_equal_claims(samples, info, phrases):
    first, second = (make_claims(samples[3], info, np.random.default_rng(1), 6, phrases) for _ in range(2))
    assert first == second


def test_a_sample_without_usable_labels_gives_no_claims(samples, info):
    rng = np.random.default_rng(0)
    assert make_claims(replace(samples[0], question="What happens?"), info, rng, 4) == []
    assert make_claims(replace(samples[0], key_items={}), info, rng, 4) == []


def test_the_longest_phrase_in_the_question_is_the_asked_one(samples):
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
