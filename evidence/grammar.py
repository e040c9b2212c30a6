"""The tag grammar: parses a completion's text into its thought, its answer and its claims (domain.md section 2).

    <think> … <obj>name</obj><box>[x1,y1,x2,y2]</box>at<t>12.0</t>s … </think><answer>…</answer>

Guarantees: `parse` never raises, whatever the text, and takes time linear in its length: one scan for tags, and each
character between tags is read a bounded number of times. Equal texts give equal claims.

Accepted beyond the form above:
- several boxes of one object, each a claim of its own, with the next time that is written;
- boxes without one or both brackets, numbers with decimals and signs;
- times as `12`, `12.0`, `12.0s`, `1:02` (62 s), `1:02:03`; intervals as `<t>3.0-5.0</t>`, `<t>3.0 to 5.0</t>`,
  `<t>3.0</t>s to <t>5.0</t>s` and `between <t>3.0</t>s and <t>5.0</t>s` (all numbers by the rules of evidence.numbers).

Rejected, so that every claim reads the same to a person: exponents, inf, nan, digits other than 0-9, more than nine
digits before the point, clocks with 60 seconds or more, boxes that do not have four numbers. An evidence tag counts
as closed only if its closing tag is the very next evidence tag: of nested tags only the innermost are read, and the
outer ones count as not closed. Each of these makes its claim invalid, with a reason.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from evidence.numbers import NO_TIME, NUMBER, ReadTime, read_time, tags_form_interval
from evidence.types import Box, Claim

TAG = re.compile(r"<(/?)(think|answer|obj|box|t)>")
FRAME_TAGS = ("think", "answer")
WELL_FORMED = ["<think>", "</think>", "<answer>", "</answer>"]
PHRASE_PUNCTUATION = frozenset("-',.&/()%")
# Invisible marks (joiners, variation selectors), combining accents without a letter of their own, and the two letters
# that look like a quotation mark.
UNSEEN = re.compile(
    "[\u00ad\u0300-\u036f\u0488\u0489\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u20d0-\u20ff"
    "\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff\u02ba\u02ee]"
)
FILLERS = frozenset("\u115f\u1160\u3164\uffa0")  # letters that look like a space

DEGENERATE = "degenerate box"


@dataclass(frozen=True)
class Completion:
    """A parsed completion. `think` and `answer` are None if their tags are absent or not closed.

    `claims`: every claim begun inside the thought, in order, invalid ones with their reason; empty without a thought.
    `parse` gives their boxes as the numbers written, `evidence.spaces.read` in pixels of the resized frame.
    `well_formed`: exactly one closed thought, then exactly one closed answer, and inside the thought as many closing
    as opening evidence tags of each kind.
    """

    think: str | None
    answer: str | None
    claims: tuple[Claim, ...]
    well_formed: bool


# Plain tuples: there are many of them, and NamedTuples cost a quarter of the speed (benchmarks/grammar.py).
_Tag = tuple[str, bool, int, int]  # name, whether it is a closing tag, start, end
# An evidence tag with its content: name, content (None if the tag is not closed), start and end, tags included.
Element = tuple[str, str | None, int, int]


class ReadBox(NamedTuple):
    """A box, or the reason why it could not be read."""

    box: Box | None
    fault: str | None


NO_BOX = ReadBox(None, "no box")


def parse(text: str) -> Completion:
    """Parse one completion. Linear time, never raises."""
    tags = _tags(text)
    frame = [tag for tag in tags if tag[0] in FRAME_TAGS]
    think = _section(frame, "think", 0)
    answer = _section(frame, "answer", think[1] if think else 0)
    low, high = think or (0, 0)
    inside = [tag for tag in tags if low <= tag[2] < high and tag[0] not in FRAME_TAGS]
    return Completion(
        think=text[slice(*think)] if think else None,
        answer=text[slice(*answer)] if answer else None,
        claims=tuple(_claims(_joined(text, _elements(text, inside)))),
        well_formed=[text[start:end] for _, _, start, end in frame] == WELL_FORMED and _balanced(inside),
    )


def elements(text: str) -> list[Element]:
    """The evidence tags opened in `text`, in order; used for answers, which hold tags but no claims.

    Two times that form an interval are one element. Linear time, never raises.
    """
    return list(_joined(text, _elements(text, [tag for tag in _tags(text) if tag[0] not in FRAME_TAGS])))


def plain_phrase(phrase: str, max_chars: int = 64, also: str = "") -> str:
    """The phrase as plain words, at most `max_chars` characters: untrusted text made safe to show to a referee.

    Only letters, digits, spaces, a little punctuation and the characters of `also` survive (no `<`, `|`, `[`, quotes
    or control characters), so that no chat or vision control token can be spelt and the phrase cannot leave its
    quotation marks. Characters that Unicode declares compatible are unified (NFKC), and invisible ones are removed.
    """
    phrase = phrase[: 4 * max_chars]
    if not phrase.isascii():
        phrase = UNSEEN.sub("", unicodedata.normalize("NFC", "".join(map(_unstyled, phrase))))
    kept = (char if _plain(char) or char in also else " " for char in phrase)
    return " ".join("".join(kept).split())[:max_chars].rstrip()


def _tags(text: str) -> list[_Tag]:
    return [(m[2], m[1] == "/", m.start(), m.end()) for m in TAG.finditer(text)]


def _plain(char: str) -> bool:
    return char in PHRASE_PUNCTUATION or (unicodedata.category(char)[0] in "LMN" and char not in FILLERS)


def _unstyled(char: str) -> str:
    """The plain letter for its wide, bold or joined form (NFKC). Superscripts stay: 10³ is not 103."""
    return char if unicodedata.category(char) == "No" else unicodedata.normalize("NFKC", char)


def _section(tags: list[_Tag], name: str, start: int) -> tuple[int, int] | None:
    """Offsets of the content of the first closed `name` section that opens at or after `start`."""
    opened: int | None = None
    for tag, closing, begins, ends in tags:
        if tag != name or begins < start:
            continue
        if opened is None and not closing:
            opened = ends
        elif opened is not None and closing:
            return opened, begins
    return None


def _balanced(tags: list[_Tag]) -> bool:
    """Whether there are as many closing as opening tags of each kind."""
    return sorted(name for name, closing, _, _ in tags if closing) == sorted(
        name for name, closing, _, _ in tags if not closing
    )


def _elements(text: str, tags: list[_Tag]) -> Iterator[Element]:
    """Every opened tag, in order; a closing tag that closes nothing is skipped."""
    opened: tuple[str, int, int] | None = None
    for name, closing, start, end in tags:
        if opened is not None:
            if closing and name == opened[0]:
                yield name, text[opened[2] : start], opened[1], end
            else:
                yield opened[0], None, *opened[1:]
        opened = None if closing else (name, start, end)
    if opened is not None:
        yield opened[0], None, *opened[1:]


def _joined(text: str, elements: Iterable[Element]) -> Iterator[Element]:
    """The elements, with `<t>3.0</t>s to <t>5.0</t>` and the like merged into the one element `<t>3.0 to 5.0</t>`."""
    last: Element | None = None
    for element in elements:
        name, content, start, end = element
        if last is None:
            last = element
        elif (
            name == last[0] == "t"
            and last[1] is not None
            and content is not None
            and tags_form_interval(text, last[2:], start)
        ):
            yield name, f"{last[1]} to {content}", last[2], end
            last = None
        else:
            yield last
            last = element
    if last is not None:
        yield last


def _claims(elements: Iterable[Element]) -> Iterator[Claim]:
    """Yield the claims of `elements`, in order.

    Boxes wait for the next time; each then becomes one claim of the latest object. A time without a box is prose,
    unless its object has no box at all.
    """
    phrase, fault = "", "no object"  # of the latest object
    waiting: list[ReadBox] = []
    start = end = 0  # span of the waiting claims: from their object, or from the first box after a time

    for name, content, opens, closes in elements:
        if name == "box":
            start = start if waiting else opens
            waiting = [] if waiting == [NO_BOX] else waiting
            waiting.append(read_box(content))
            end = closes
        elif name == "t":
            time = read_time(content)
            yield from [_claim(phrase, fault, box, time, (start, closes)) for box in waiting]
            waiting = []
        else:
            yield from [_claim(phrase, fault, box, NO_TIME, (start, end)) for box in waiting]
            phrase = (content or "").strip()
            fault = "object not closed" if content is None else "" if phrase else "no phrase"
            waiting, start, end = [NO_BOX], opens, closes
    yield from [_claim(phrase, fault, box, NO_TIME, (start, end)) for box in waiting]


def _claim(phrase: str, fault: str, read: ReadBox, time: ReadTime, span: tuple[int, int]) -> Claim:
    """The claim with its first fault. A degenerate box comes last: such a claim is otherwise complete."""
    box = read.box
    degenerate = DEGENERATE if box and (box[2] <= box[0] or box[3] <= box[1]) else None
    return Claim(phrase, box, time.time, span, fault or read.fault or time.fault or degenerate, time.until)


def read_box(text: str | None) -> ReadBox:
    """A box from a box tag's content: four numbers, in whatever order. None stands for a tag that is not closed."""
    if text is None:
        return ReadBox(None, "box not closed")
    matches = [NUMBER.fullmatch(part) for part in text.strip().removeprefix("[").removesuffix("]").split(",")]
    values = [float(match[1]) for match in matches if match]
    if len(values) < len(matches):
        return ReadBox(None, "unreadable box")
    if len(values) != 4:
        return ReadBox(None, f"box has {len(values)} numbers")
    return ReadBox((values[0], values[1], values[2], values[3]), None)
