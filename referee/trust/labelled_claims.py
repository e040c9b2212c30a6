"""True and corrupted claims with labels, made from any sample with boxes: training and test data for a referee.

The labelling rule. Both labels follow from the claim's box, in whole pixels as drawn, and the boxes labelled in the
frame at the claim's time:

- relevance is about the asked object, whatever the claim calls it: 2 if the box covers at least half of it, 1 if at
  least a fifth, else 0. Tightness, and the choice of the object's moment, do not affect relevance.
- localization is about the named object, asked or not: 2 if some box of that phrase has IoU >= .7 with the claim's, 1
  if >= .4, else 0. A phrase that names nothing in that frame gives 0. (The lower bound is .4 and not .5, so that a
  policy is rewarded for turning a bad box into a mediocre one.)

So a box of IoU >= .2 with the asked object is never labelled irrelevant, and an exact box of another object is well
localised under its own name and badly under any other.

The rule assumes that `key_items` lists every visible object of each labelled frame, and that the asked object is the
one whose phrase occurs in the question. Samples without such a phrase give no claims.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from evidence.geometry import area, convert, coverage, intersection, iou, nearest_frame
from evidence.grammar import plain_phrase
from evidence.types import NORMALISED, Box, Claim, FrameInfo, Sample
from referee.verification import drawn_box

T = TypeVar("T")

# Maximum distance in seconds between a labelled frame and the nearest shown frame for the boxes to apply to the latter.
SAME_FRAME_S = 0.25
# Sampling weight of each kind of claim, chosen so that at least half of relevance's negatives tightly hold another
# visible object ("other ..."), and at least half of localization's negatives have IoU .2-.4 ("iou .2-.4").
WEIGHTS = {
    "exact": 2.0,
    "jittered": 3.0,
    "other, own name": 3.2,
    "other, asked name": 2.6,
    "background": 0.4,
    "absent": 0.6,
    "iou .2-.4": 11.0,
    "iou .4-.7": 2.5,
    "iou <.2": 0.4,
    "wrong name": 3.5,
    "no name": 3.5,
}
# Letters of the noise in "no name", in several scripts: noise must name nothing in any of them.
SCRIPTS = (
    "abcdefghijklmnopqrstuvwxyz",
    "0123456789",
    "абвгдежзиклмнопрстуфхцчшщэюя",
    "αβγδεζηθικλμνξοπρστυφχψω",
    "的一是在不了有和人这中大为上个国我以要他",
)


@dataclass(frozen=True)
class LabelledClaim:
    """A claim about a sample's video with both labels (0, 1 or 2), and the best IoU of its box with the asked object
    and with the named object. `stratum`: its key in WEIGHTS, or its origin if it was not made here."""

    claim: Claim
    question: str
    relevance: int
    localization: int
    stratum: str
    asked_iou: float
    named_iou: float


@dataclass(frozen=True)
class Moment:
    """The objects visible at `time` (seconds): phrase -> boxes in pixels of the resized frame."""

    time: float
    items: dict[str, tuple[Box, ...]]


def asked_phrase(sample: Sample) -> str | None:
    """The labelled phrase that occurs in the question, the longest if several do."""
    question = sample.question.casefold()
    phrases = {phrase for items in sample.key_items.values() for phrase in items}
    return max((p for p in phrases if p.casefold() in question), key=lambda p: (len(p), p), default=None)


def relevance_label(box: Box, asked: Sequence[Box]) -> int:
    """0, 1 or 2 by how much of the asked object the box covers (rule in the module's docstring)."""
    covered = max((coverage(target, box) for target in asked), default=0.0)
    return 2 if covered >= 0.5 else 1 if covered >= 0.2 else 0


def localization_label(box: Box, named: Sequence[Box]) -> int:
    """0, 1 or 2 by the best IoU with a box of the named object (rule in the module's docstring)."""
    best = best_iou(box, named)
    return 2 if best >= 0.7 else 1 if best >= 0.4 else 0


def best_iou(box: Box, targets: Sequence[Box]) -> float:
    """The best IoU of `box` with one of the targets; 0 without targets."""
    return max((iou(target, box) for target in targets), default=0.0)


def make_claims(
    sample: Sample, info: FrameInfo, rng: np.random.Generator, n: int, phrases: Sequence[str] = ()
) -> list[LabelledClaim]:
    """Up to `n` labelled claims about one sample, with strata drawn by WEIGHTS among those that the sample allows.

    `phrases`: phrases of the whole dataset, the source of wrong names, together with the sample's own; names that
    differ from the asked one in a single word are preferred. Fewer than `n` claims, or none, if the sample's labels
    do not allow more.
    """
    asked = asked_phrase(sample)
    moments = moments_of(sample, info)
    if asked is None or not any(asked in m.items for m in moments):
        return []
    maker = ClaimMaker(sample, info, rng, asked, moments, tuple(phrases))
    names = list(WEIGHTS)
    weights = np.array(list(WEIGHTS.values()))
    claims: list[LabelledClaim] = []
    for _ in range(8 * n):  # a stratum may be impossible in this sample
        if len(claims) == n:
            break
        labelled = maker.make(names[rng.choice(len(names), p=weights / weights.sum())])
        if labelled is not None:
            claims.append(labelled)
    return claims


def label_claims(sample: Sample, info: FrameInfo, claims: Sequence[Claim], stratum: str) -> list[LabelledClaim]:
    """Labels for given claims, such as a policy's: those that have a box and whose frame (the shown frame nearest to
    their time) is labelled. Phrases are matched ignoring case and article."""
    asked = asked_phrase(sample)
    moments = {moment.time: moment for moment in moments_of(sample, info)}
    labelled = []
    for claim in claims:
        if not claim.valid or claim.box is None or claim.time is None or asked is None:
            continue
        moment = moments.get(info.times[nearest_frame(info.times, claim.time)])
        if moment is not None:
            named = [box for phrase, at in moment.items.items() if _name(phrase) == _name(claim.phrase) for box in at]
            box = drawn_box(claim.box, info.size)
            labelled.append(_labelled(sample, claim, box, moment.items.get(asked, ()), named, stratum))
    return labelled


def _labelled(
    sample: Sample, claim: Claim, box: Box, asked: Sequence[Box], named: Sequence[Box], stratum: str
) -> LabelledClaim:
    """The claim with its labels. `box`: the claim's as drawn; `asked`, `named`: boxes of those objects in its frame."""
    return LabelledClaim(
        claim=claim,
        question=sample.asked,
        relevance=relevance_label(box, asked),
        localization=localization_label(box, named),
        stratum=stratum,
        asked_iou=best_iou(box, asked),
        named_iou=best_iou(box, named),
    )


def _name(phrase: str) -> str:
    words = plain_phrase(phrase).casefold().split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words)


def moments_of(sample: Sample, info: FrameInfo) -> list[Moment]:
    """The labelled frames that are among the shown frames, with the shown frames' times."""
    moments = []
    for key in sample.key_frames:
        shown = info.times[nearest_frame(info.times, key.time)]
        if key.idx in sample.key_items and abs(shown - key.time) <= SAME_FRAME_S:
            items = sample.key_items[key.idx]
            boxes = {
                phrase: tuple(convert(box, NORMALISED, info.resized_space) for box in at)
                for phrase, at in items.items()
            }
            moments.append(Moment(shown, boxes))
    return moments


class ClaimMaker:
    """Makes claims about one sample. Its methods return None if the sample, or chance, does not allow such a claim.

    Methods that return (moment, box, phrase) may have box None: no box was found within the tries.
    """

    def __init__(
        self,
        sample: Sample,
        info: FrameInfo,
        rng: np.random.Generator,
        asked: str,
        moments: list[Moment],
        phrases: tuple[str, ...],
    ):
        self.sample, self.info, self.rng, self.asked = sample, info, rng, asked
        self.present = [m for m in moments if m.items.get(asked)]
        self.absent = [m for m in moments if not m.items.get(asked)]
        self.crowded = [m for m in self.present if len(m.items) > 1]
        self.phrases = sorted({*phrases, *(p for m in moments for p in m.items)})

    def make(self, stratum: str) -> LabelledClaim | None:
        """A claim of the stratum, a key of WEIGHTS."""
        recipe: Callable[[], tuple[Moment, Box | None, str] | None] = {
            "exact": lambda: self.asked_box(1.0, 1.0),
            "jittered": lambda: self.asked_box(0.7, 1.0),
            "iou .4-.7": lambda: self.asked_box(0.4, 0.7),
            "iou .2-.4": lambda: self.asked_box(0.2, 0.4),
            "iou <.2": lambda: self.asked_box(0.02, 0.2),
            "other, own name": lambda: self.other_box(own_name=True),
            "other, asked name": lambda: self.other_box(own_name=False),
            "background": self.background,
            "absent": self.right_box_wrong_time,
            "wrong name": self.wrong_name,
            "no name": self.no_name,
        }[stratum]
        placed = recipe()
        if placed is None:
            return None
        moment, box, phrase = placed
        if box is None:
            return None
        claim = Claim(phrase, box, moment.time, (0, 0))
        return _labelled(
            self.sample, claim, box, moment.items.get(self.asked, ()), moment.items.get(phrase, ()), stratum
        )

    def asked_box(self, low: float, high: float) -> tuple[Moment, Box | None, str]:
        moment = self.pick(self.present)
        return moment, self.near(self.pick(moment.items[self.asked]), low, high), self.asked

    def other_box(self, own_name: bool) -> tuple[Moment, Box | None, str] | None:
        if not self.crowded:
            return None
        moment = self.pick(self.crowded)
        other = self.pick([phrase for phrase in moment.items if phrase != self.asked])
        low = 1.0 if self.rng.random() < 0.5 else 0.7
        box = self.near(self.pick(moment.items[other]), low, 1.0)
        return moment, box, other if own_name else self.asked

    def background(self) -> tuple[Moment, Box | None, str]:
        moment = self.pick(self.present)
        like = self.pick(moment.items[self.asked])
        return moment, self.empty_box(like, [box for boxes in moment.items.values() for box in boxes]), self.asked

    def right_box_wrong_time(self) -> tuple[Moment, Box | None, str] | None:
        if not self.absent:
            return None
        box = self.pick(self.pick(self.present).items[self.asked])
        return self.pick(self.absent), self.whole(box), self.asked

    def wrong_name(self) -> tuple[Moment, Box | None, str] | None:
        moment = self.pick(self.present)
        names = [phrase for phrase in self.phrases if phrase not in moment.items]
        if not names:
            return None
        # The differing word is drawn first, so that each word is equally often wrong however many names differ in it.
        places = [_differing_word(phrase, self.asked) for phrase in names]
        single = sorted({place for place in places if place is not None})
        if single:
            chosen = self.pick(single)
            names = [phrase for phrase, place in zip(names, places) if place == chosen]
        return moment, self.whole(self.pick(moment.items[self.asked])), self.pick(names)

    def no_name(self) -> tuple[Moment, Box | None, str] | None:
        """The asked object's box, tight or loose, under words that name nothing: noise, noise around its name, a part
        of the question, a list. A referee not trained on such words answers at random, which a policy can exploit."""
        moment = self.pick(self.present)
        low, high = self.pick(((0.2, 0.4), (0.4, 0.7), (0.7, 1.0), (1.0, 1.0)))
        box = self.near(self.pick(moment.items[self.asked]), low, high)
        noise = [self.noise() for _ in range(int(self.rng.integers(1, 5)))]
        words = self.sample.asked.split()
        start = int(self.rng.integers(0, max(1, len(words) - 2)))
        at = int(self.rng.integers(0, len(noise) + 1))
        names = [self.pick(self.phrases) for _ in range(int(self.rng.integers(3, 7)))]
        text = self.pick(
            (
                " ".join(noise),
                " ".join([*noise[:at], self.asked, *noise[at:]]),
                " ".join(words[start : start + int(self.rng.integers(3, len(words) + 3))]),
                ", ".join(names),
                ", ".join(self.pick(name.split()) for name in names),
            )
        )
        if any(_name(text) == _name(phrase) for phrase in moment.items):
            return None
        return moment, box, text

    def noise(self) -> str:
        letters = self.pick(SCRIPTS)
        return "".join(self.pick(letters) for _ in range(int(self.rng.integers(1, 9))))

    def near(self, box: Box, low: float, high: float) -> Box | None:
        """A box in whole pixels, shifted and scaled to an IoU in [low, high) with `box`; `box` itself for low = 1."""
        if low == 1.0:
            return self.whole(box)
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        w, h = box[2] - box[0], box[3] - box[1]
        for _ in range(100):
            spread = self.rng.uniform(0.1, 1.2)
            dx, dy = self.rng.uniform(-0.7, 0.7, 2) * spread
            common, ratio = self.rng.uniform(-0.7, 0.7) * spread, self.rng.uniform(-0.25, 0.25) * spread
            half_w, half_h = w / 2 * math.exp(common + ratio), h / 2 * math.exp(common - ratio)
            cx, cy = x + dx * w, y + dy * h
            moved = self.whole((cx - half_w, cy - half_h, cx + half_w, cy + half_h))
            if low <= iou(box, moved) < high:
                return moved
        return None

    def empty_box(self, like: Box, occupied: list[Box]) -> Box | None:
        """A box about as large as `like` that overlaps each object by less than 5% of the smaller area."""
        width, height = self.info.size
        for _ in range(50):
            w, h = np.array([like[2] - like[0], like[3] - like[1]]) * self.rng.uniform(0.7, 1.3, 2)
            if w >= width or h >= height:
                continue
            x, y = self.rng.uniform(0, width - w), self.rng.uniform(0, height - h)
            box = self.whole((x, y, x + w, y + h))
            if all(intersection(box, other) < 0.05 * min(w * h, area(other)) for other in occupied):
                return box
        return None

    def whole(self, box: Box) -> Box:
        """The box in whole pixels as the referee sees it, so that the label matches what is shown."""
        x1, y1, x2, y2 = drawn_box(box, self.info.size)
        return float(x1), float(y1), float(x2), float(y2)

    def pick(self, choices: Sequence[T]) -> T:
        return choices[int(self.rng.integers(len(choices)))]


def _differing_word(a: str, b: str) -> int | None:
    """The index of the only word in which two phrases of equal length differ; None unless there is exactly one."""
    left, right = a.casefold().split(), b.casefold().split()
    places = [place for place, (x, y) in enumerate(zip(left, right)) if x != y]
    return places[0] if len(left) == len(right) and len(places) == 1 else None
