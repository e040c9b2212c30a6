"""The questions put to a referee. About a claim: two questions with a one-token answer on the scale 0, 1, 2, and two
images. About an answer (text judge): one question on the scale 0 to 3, without images.

Guarantees: to judge a claim, the referee sees the question, the claim's phrase and time, the frame with the box drawn
and the crop, and never the policy's reasoning or the reference answer. Text written by the policy enters as plain
words between quotation marks. Text and images depend on the arguments alone, so training, calibration and scoring ask
exactly the same. Pure.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from evidence.config_checks import require_one_of
from evidence.drawing import crop, draw_box, resized
from evidence.errors import BadInput
from evidence.geometry import clip
from evidence.grammar import plain_phrase
from evidence.types import Box

KINDS = ("relevance", "localization")
JUDGE = "judge"
SCALE = ("0", "1", "2")
JUDGE_SCALE = (*SCALE, "3")
READINGS = ("expected", "argmax")
TINY = 1e-12  # float32 probabilities underflow; a label of probability 0 must cost much, not infinitely much
IMAGES = "<images>"  # place of the frame, followed by the crop, in a wording
ANSWER_PUNCTUATION = ":;?!+*=$€£°#"  # allowed in an answer beyond a phrase's; no brackets and no quotation marks


@dataclass
class Wording:
    """What the referee is asked.

    relevance, localization: the two questions about a claim, each with `<images>` once and optionally {question},
        {phrase} and {time} (seconds).
    judge: the question about an answer, with optional {question}, {reference} and {answer}.
    version: part of the key of cached verdicts.

    The images come first, so that the two questions of a claim share them. Relevance is about the content of the box,
    whatever the policy called it; localisation is about the object that the policy named.
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
                raise BadInput(f"{kind} = {getattr(self, kind)!r}: must contain {IMAGES} exactly once")
        _fields(self, JUDGE, {"question", "reference", "answer"})


def _fields(wording: Wording, kind: str, known: set[str]) -> str:
    """The template of `kind`. Raises BadInput if it has fields other than the known ones."""
    template: str = getattr(wording, kind)
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise BadInput(f"{kind} = {template!r}: {error}; write a literal brace twice") from None
    if not fields <= known:
        names = ", ".join(f"{{{name}}}" for name in sorted(known))
        raise BadInput(f"{kind} = {template!r}: must have no fields except {names}")
    return template


@dataclass
class VerificationConfig:
    """How claims and answers are put to the referee. `crop_size`: (width, height), pixels; 224 are whole tiles of every
    supported family. `pad_share`: the crop's margin as a share of the box's sides. `reading`: how the scale's
    probabilities become one number. `max_phrase_chars`, `max_answer_chars`: longer ones are cut before they are put
    into a question."""

    wording: Wording = field(default_factory=Wording)
    crop_size: tuple[int, int] = (224, 224)
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

    `kind` is one of KINDS; `time` is the time of the judged frame, in seconds.
    """
    template = getattr(cfg.wording, kind)
    values = {"question": question, "phrase": plain_phrase(phrase, cfg.max_phrase_chars), "time": f"{time:.1f}"}
    # Split before filling in: text written by the policy must not be able to place images.
    before, after = (text.format(**values) for text in template.split(IMAGES))
    turn: list[str | tuple[int, int]] = [before, frame_size, cfg.crop_size, after]
    return [part for part in turn if part]


def judge_text(question: str, reference: str, answer: str, cfg: VerificationConfig) -> str:
    """The turn put to the text judge. `answer` comes from the policy, the rest from the dataset."""
    plain = plain_phrase(answer, cfg.max_answer_chars, ANSWER_PUNCTUATION)
    return cfg.wording.judge.format(question=question, reference=reference, answer=plain)


def shown_size(frame_size: tuple[int, int], tile: int) -> tuple[int, int]:
    """(width, height) at which a referee with tiles of that many pixels sees a frame: the nearest whole tiles."""
    width, height = (max(1, round(side / tile)) * tile for side in frame_size)
    return width, height


def images(
    frame: np.ndarray, box: Box, cfg: VerificationConfig, size: tuple[int, int] | None = None
) -> list[np.ndarray]:
    """[frame with the box drawn, crop], uint8 [h, w, 3] each; `frame` is uint8 [H, W, 3], `box` in its pixels.

    size: (width, height) of the frame as the referee sees it; None: its own. The crop is cut from the frame itself.
    """
    own = frame.shape[1], frame.shape[0]
    box = drawn_box(box, own)
    cut = crop(frame, box, cfg.pad_share, cfg.crop_size)
    if size is not None and size != own:
        across, down = size[0] / own[0], size[1] / own[1]
        frame, box = resized(frame, size), (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
    return [draw_box(frame, box), cut]


def drawn_box(box: Box, frame_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box as a referee sees it: whole pixels inside the frame, at least one wide and high.

    Boxes that are equal after this get equal verdicts, so the result is the box's key in the cache.
    """
    width, height = frame_size
    x1, y1, x2, y2 = (round(v) for v in clip(box, frame_size))
    x1, y1 = min(x1, width - 1), min(y1, height - 1)
    return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)


def read_scale(probabilities: Sequence[float] | np.ndarray, reading: str, temperature: float = 1.0) -> float:
    """A verdict in [0, 1] from the probabilities, float [n], of the scale's tokens 0 … n-1.

    `argmax` is the likeliest token divided by n-1. `expected` is the probability-weighted mean divided by n-1: smooth,
    and calibrated by dividing the log-probabilities by `temperature`.
    """
    weights = np.asarray(probabilities, np.float64)
    highest = len(weights) - 1
    if reading == "argmax":
        return float(np.argmax(weights)) / highest
    if temperature != 1.0:
        weights = rescaled(weights, temperature)
    return float(np.dot(weights, np.arange(highest + 1)) / np.sum(weights)) / highest


def rescaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """float64 [..., n]: the probabilities of the scale's tokens at `temperature`, normalised to sum 1."""
    logits = np.log(np.maximum(np.asarray(probabilities, np.float64), TINY)) / temperature
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
