"""What a referee is asked of a claim: two questions with a one-token answer on the scale 0, 1, 2, and two images. And
what it is asked of an answer, as a text judge: one question on the scale 0 to 3, without images.

Guarantees: of a claim the referee sees the question, the claim's phrase and time, the frame with the box drawn and the
crop, and never the policy's reasoning or the reference answer; what the policy wrote enters as plain words between
quotation marks; text and images depend on nothing but the arguments, so that training, calibration and scoring ask the
very same. Pure.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from evidence.config_checks import require_one_of
from evidence.drawing import crop, draw_box
from evidence.errors import BadInput
from evidence.geometry import clip
from evidence.grammar import plain_phrase
from evidence.types import Box

KINDS = ("relevance", "localization")
JUDGE = "judge"
SCALE = ("0", "1", "2")
JUDGE_SCALE = (*SCALE, "3")
READINGS = ("expected", "argmax")
TINY = 1e-12  # float32 probabilities underflow; a label they call impossible must cost much, not infinitely
IMAGES = "<images>"  # where the frame and then the crop stand in a wording
ANSWER_PUNCTUATION = ":;?!+*=$€£°#"  # what an answer may need beyond a phrase's; no bracket and no quotation mark


@dataclass
class Wording:
    """The two questions about a claim, each with `<images>` once and, where wanted, {question}, {phrase} and {time}
    (seconds); and the one about an answer, with {question}, {reference} and {answer}.

    The images come first, so that the two questions of a claim share them. Relevance is asked of what is in the box,
    whatever the policy called it; localisation of the thing it named.
    """

    version: str = "1"
    relevance: str = "<images>Question: {question}\nDoes the box at {time} s show what is asked? 0 no 1 partly 2 yes"
    localization: str = '<images>Does the box tightly hold "{phrase}"? 0 no 1 loosely 2 yes'
    judge: str = (
        'Question: {question}\nReference answer: "{reference}"\nAnswer: "{answer}"\n'
        "Does the answer say what the reference says? 0 no 1 hardly 2 mostly 3 yes"
    )

    def __post_init__(self) -> None:
        for kind in KINDS:
            if _fields(self, kind, {"question", "phrase", "time"}).count(IMAGES) != 1:
                raise BadInput(f"{kind}: needs {IMAGES} once: {getattr(self, kind)!r}")
        _fields(self, JUDGE, {"question", "reference", "answer"})


def _fields(wording: Wording, kind: str, known: set[str]) -> str:
    """The template of `kind`, if it has no fields but the known ones."""
    template: str = getattr(wording, kind)
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise BadInput(f"{kind}: {error}; a brace itself is written twice: {template!r}") from None
    if not fields <= known:
        names = ", ".join(f"{{{name}}}" for name in sorted(known))
        raise BadInput(f"{kind}: may have no field but {names}: {template!r}")
    return template


@dataclass
class VerificationConfig:
    """How claims and answers are put to the referee. `crop_size` is (width, height); `pad_share` the crop's margin as a
    share of the box's sides; `reading` how the scale's probabilities become one number."""

    wording: Wording = field(default_factory=Wording)
    crop_size: tuple[int, int] = (56, 56)
    pad_share: float = 0.25
    max_phrase_chars: int = 64
    max_answer_chars: int = 512
    reading: str = "expected"  # expected | argmax

    def __post_init__(self) -> None:
        require_one_of(self, READINGS, "reading")


def parts(
    kind: str, question: str, phrase: str, time: float, frame_size: tuple[int, int], cfg: VerificationConfig
) -> list[str | tuple[int, int]]:
    """The turn put to the referee, for `ChatEncoder.encode`: texts, and (width, height) for the frame, then the crop.

    `kind` is one of KINDS; `time` is that of the frame looked at, in seconds.
    """
    template = getattr(cfg.wording, kind)
    values = {"question": question, "phrase": plain_phrase(phrase, cfg.max_phrase_chars), "time": f"{time:.1f}"}
    # Split before filling in: what the policy wrote must not be able to place images.
    before, after = (text.format(**values) for text in template.split(IMAGES))
    turn: list[str | tuple[int, int]] = [before, frame_size, cfg.crop_size, after]
    return [part for part in turn if part]


def judge_text(question: str, reference: str, answer: str, cfg: VerificationConfig) -> str:
    """The turn put to the text judge. `answer` is the policy's, the rest is the dataset's."""
    plain = plain_phrase(answer, cfg.max_answer_chars, ANSWER_PUNCTUATION)
    return cfg.wording.judge.format(question=question, reference=reference, answer=plain)


def images(frame: np.ndarray, box: Box, cfg: VerificationConfig) -> list[np.ndarray]:
    """[frame with the box drawn, crop], uint8 [h, w, 3] each; `frame` is uint8 [H, W, 3], `box` in its pixels."""
    box = drawn_box(box, (frame.shape[1], frame.shape[0]))
    return [draw_box(frame, box), crop(frame, box, cfg.pad_share, cfg.crop_size)]


def drawn_box(box: Box, frame_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box as a referee sees it: whole pixels inside the frame, at least one wide and high.

    Boxes equal after this get equal verdicts, so this is what the cache knows a box by.
    """
    width, height = frame_size
    x1, y1, x2, y2 = (round(v) for v in clip(box, frame_size))
    x1, y1 = min(x1, width - 1), min(y1, height - 1)
    return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)


def read_scale(probabilities: Sequence[float] | np.ndarray, reading: str, temperature: float = 1.0) -> float:
    """A verdict in [0, 1] from the probabilities, float [n], of the scale's tokens 0 … n-1.

    `argmax` is the likeliest token over n-1; `expected` the probability-weighted mean over n-1: smooth, and calibrated
    by dividing the log-probabilities by `temperature`.
    """
    likely = np.asarray(probabilities, np.float64)
    most = len(likely) - 1
    if reading == "argmax":
        return float(np.argmax(likely)) / most
    if temperature != 1.0:
        likely = rescaled(likely, temperature)
    return float(np.dot(likely, np.arange(most + 1)) / np.sum(likely)) / most


def rescaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """float64 [..., n]: the probabilities of the scale's tokens at that temperature; at 1 as they are, normalised."""
    logits = np.log(np.maximum(np.asarray(probabilities, np.float64), TINY)) / temperature
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
