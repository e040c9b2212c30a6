"""The one reading of numbers, times and intervals in text. Grammar, reward terms and evaluation share it.

A number is written with the digits 0-9, at most nine of them before the point (in a quantity fifteen). Exponents,
digits of other scripts, underscores, inf and nan are not numbers here, so that every text reads the same to a person
and to the reward.

- A moment is a number or a clock (`1:02`, `1:02:03`), optionally with a unit: s, sec, secs, second or seconds.
- An interval is `A to B` or `A - B`; `between A and B`; in prose without time tags also `[A, B]`, `(A, B)`, and a text
  that is nothing but `A, B`. Other numbers with a comma or an "and" between them are not an interval. In prose the unit
  may also be minutes or hours, of one end or of both. Numbers with another unit (%, m, ms, days, frames) or in a chain
  of three (`2024-11-26`), and times of two units (`1 min 5 s`), are not intervals.
- A quantity is a number that may have a sign, thousands separators, a currency sign or a unit, or be a fraction.

Guarantees: no function raises, whatever the text, and each takes time linear in the text's length. Official scorers of
benchmarks read times by rules of their own (V-STaR: exactly two word-bounded numbers): those belong to the benchmark,
not here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

Interval = tuple[float, float]

# Bounded digits: a longer number is noise, and float() of it could be infinite.
DIGITS = r"(?:[0-9]{1,9}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})"
NUMBER = re.compile(rf"\s*([+-]?{DIGITS})\s*")
CLOCK = r"(?:[0-9]{1,3}:[0-5][0-9]|[0-9]{1,4}):[0-5][0-9](?:\.[0-9]{0,20})?"
# In all patterns: no two runs of whitespace may be adjacent, since a long one could be split between them in
# quadratically many ways.
SECONDS = r"(?:\s*(?i:s(?:ec(?:ond)?s?)?)\b\.?)?"
TO = r"\s*(?:(?i:to)|[-–—])\s*"
MOMENT = rf"({CLOCK}|[+-]?{DIGITS}){SECONDS}"
TIME = re.compile(rf"\s*{MOMENT}(?:{TO}{MOMENT})?\s*")
# The text between two time tags that form an interval; with "and", the first must follow the word "between".
TO_TAG = re.compile(rf"{SECONDS}{TO}")
AND_TAG = re.compile(rf"{SECONDS}\s*(?i:and)\s*")
BETWEEN = re.compile(r"(?i:\bbetween)\s{0,8}$")
BETWEEN_CHARS = 16  # enough for the word and its whitespace
# Prose: the first letter of a unit gives its seconds.
UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}
UNIT = r"(?i:(s(?:ec(?:ond)?s?)?|min(?:ute)?s?|h(?:(?:ou)?rs?)?)\b\.?)(?! {1,8}[0-9])"
CURRENCIES = "$€£¥₹₩₽"
PLAIN = rf"({CLOCK}|{DIGITS})(?:\s*{UNIT})?"
PLAIN_PAIR = rf"{PLAIN}\s*,\s*{PLAIN}"
# Numbers that go on before or after are dates, versions or amounts (`1-2-3`, `2.5.1`, `1,000 to 2,000`).
ALONE = rf"(?<![\w./{CURRENCIES}-])(?!(?<=[0-9],)[0-9]{{3}}(?![0-9]))"
ENDED = r"(?![\w:/]|\.[0-9]|,[0-9]{3}(?![0-9])|\s{0,8}[-–—]\s{0,8}[0-9])"
OF_TIME = r"(?!\s{0,8}(?:[%‰]|(?i:percent|m|ms|milliseconds?|min(?:ute)?s?|h(?:(?:ou)?rs?)?|days?|frames?)\b))"
# Six pairs of number and unit, of which two match, and the unit after a bracket.
PLAIN_INTERVAL = re.compile(
    rf"{ALONE}(?:{PLAIN}{TO}{PLAIN}|(?i:between)\s+{PLAIN}\s*(?i:and)\s*{PLAIN}){ENDED}{OF_TIME}"
    rf"|[\[(]\s*{PLAIN_PAIR}\s*[\])](?:\s*{UNIT})?{OF_TIME}"
)
ONLY_PAIR = re.compile(rf"\s*{PLAIN_PAIR}\s*(?:\.\s*)?")
# Before an interval: it would be the rest of a chain (`1 - 2 - 3`) or of a time of two units (`1 minute 5 seconds`).
CONTINUED = re.compile(r"[0-9](?:\s{0,8}[-–—]\s{0,8}| {0,8}(?i:min(?:ute)?s?|h(?:(?:ou)?rs?)?) {1,8})$")
CONTINUED_CHARS = 24

THOUSANDS = r"[0-9]{1,3}(?:,[0-9]{2,3}){0,3},[0-9]{3}(?:\.[0-9]{0,20})?"
QUANTITY = re.compile(
    rf"(?P<sign>[+-]?)(?:\s*(?P<currency>[{CURRENCIES}]))?\s*(?:"
    r"\\[dt]?frac\s*\{(?P<latex_over>[0-9]{1,9})\}\s*\{(?P<latex_under>[0-9]{1,9})\}"
    r"|(?:(?P<whole>[0-9]{1,9})\s+)?(?P<over>[0-9]{1,9})\s*/\s*(?P<under>[0-9]{1,9})"
    rf"|(?P<number>{THOUSANDS}|[0-9]{{10,15}}|{DIGITS}))(?![0-9.,])"
)
UNIT_SIGNS = frozenset(f"{CURRENCIES}%‰°²³/·' ")
MOST_UNIT_WORDS = 3  # "meters per second"
# Words after a number that change its value, or continue the sentence. A text with one of them is not a plain number.
NOT_UNITS = {
    *("and", "or", "to", "plus", "minus", "times", "x", "k", "half", "point"),
    *("dozen", "hundred", "thousand", "million", "billion", "trillion"),
    *("dozens", "hundreds", "thousands", "millions", "billions", "trillions"),
    *("mn", "mln", "mil", "bn", "bln", "tn", "trn", "lakh", "lakhs", "crore", "crores", "squared", "cubed"),
    *("tenth", "tenths", "hundredth", "hundredths", "thousandth", "thousandths", "millionth", "millionths"),
}
# Other words for the same unit.
SAME_UNIT = {"percent": "%", "dollar": "$", "euro": "€", "feet": "foot", "inche": "inch"}
CHINESE_MULTIPLIERS = frozenset("十百千万萬亿億兆半点點")


class ReadTime(NamedTuple):
    """A moment or, with `until`, an interval, in seconds; or the reason why it could not be read."""

    time: float | None
    until: float | None
    fault: str | None


NO_TIME = ReadTime(None, None, "no time")


class Quantity(NamedTuple):
    """A number and its unit, currency or percent sign as plain text in the singular, empty without one; in lower case
    except for single letters (5 M is not 5 m)."""

    value: float
    unit: str


def seconds(moment: str) -> float:
    """Seconds of a moment written as hours:minutes:seconds, minutes:seconds or a plain number."""
    total = 0.0
    for part in moment.split(":"):
        total = 60 * total + float(part)
    return total


def read_time(text: str | None) -> ReadTime:
    """A moment or an interval from a time tag's content. None stands for a tag that is not closed."""
    if text is None:
        return ReadTime(None, None, "time not closed")
    match = TIME.fullmatch(text)
    if not match:
        return ReadTime(None, None, "unreadable time")
    time, until = seconds(match[1]), seconds(match[2]) if match[2] else None
    return ReadTime(time, until, "reversed interval" if until is not None and until < time else None)


def tags_form_interval(text: str, first: tuple[int, int], second: int) -> bool:
    """Whether the time tag at offsets `first` (start, end) of `text` and the one that starts at `second` are the two
    ends of one interval, by the words around them."""
    start, end = first
    if TO_TAG.fullmatch(text, end, second):
        return True
    before = text[max(0, start - BETWEEN_CHARS) : start]
    return AND_TAG.fullmatch(text, end, second) is not None and BETWEEN.search(before) is not None


def plain_intervals(text: str) -> list[Interval]:
    """Every interval in a text without time tags, in seconds; reversed ones included. In the order of the text, except
    that those with a unit of time or a clock precede bare numbers: `3-5 people, from 10 to 12 s`."""
    pair = ONLY_PAIR.fullmatch(text)
    read = [
        _interval(match)
        for match in ([pair] if pair else PLAIN_INTERVAL.finditer(text))
        if not CONTINUED.search(text[max(0, match.start() - CONTINUED_CHARS) : match.start()])
    ]
    return [interval for interval, _ in sorted(read, key=lambda item: not item[1])]


def _interval(match: re.Match[str]) -> tuple[Interval, bool]:
    """(interval in seconds, whether it is written as a time). A unit at one end, or after brackets, counts for both."""
    groups = match.groups()
    (start, first), (stop, last) = [pair for pair in zip(groups[0:12:2], groups[1:12:2]) if pair[0]]
    after = next(iter(groups[12:]), None)
    ends = _plain_seconds(start, first or after or last), _plain_seconds(stop, last or after or first)
    return ends, ":" in start + stop or any((first, last, after))


def _plain_seconds(number: str, unit: str | None) -> float:
    """Seconds of a number with its unit. A clock has its own: `1:02 minutes` is 62 s, `1:02 hours` 62 minutes."""
    factor = UNIT_SECONDS[unit[0].lower()] if unit else 1
    return seconds(number) * max(1.0, factor / 60 ** number.count(":"))


def quantity(text: str) -> Quantity | None:
    """The quantity that `text` consists of; None if it is anything else.

    Read are signs, thousands separators (`12,500`), fractions (`1/2`, `1 1/2`, `\\frac{1}{2}`), a currency sign before
    the number, and after it a unit of at most three words, a percent or a currency sign. Text in LaTeX's `$…$` counts
    as without it.
    """
    text = text.strip().replace("\N{MINUS SIGN}", "-")
    if len(text) > 2 and text[0] == text[-1] == "$":
        text = text[1:-1].strip()
    match = QUANTITY.match(text)
    if match is None:
        return None
    after = text[match.end() :].strip().removesuffix(".")
    value = _value(match)
    if value is None or not _is_unit(after) or (match["currency"] and after):
        return None
    unit = match["currency"] or " ".join(map(_singular, after.split()))
    return Quantity(-value if match["sign"] == "-" else value, unit)


def _singular(word: str) -> str:
    """A word of a unit in the form in which units are compared: 1 meter, 2 meters."""
    word = word.casefold() if len(word) > 1 else word
    word = word.removesuffix("s") if len(word) > 2 else word
    return SAME_UNIT.get(word, word)


def _value(match: re.Match[str]) -> float | None:
    """The unsigned value of a match of QUANTITY; None for a fraction by 0."""
    if match["number"]:
        return float(match["number"].replace(",", ""))
    under = float(match["latex_under"] or match["under"])
    over = float(match["latex_over"] or match["over"])
    return float(match["whole"] or 0) + over / under if under else None


def _is_unit(text: str) -> bool:
    words = text.casefold().split()
    return (
        len(words) <= MOST_UNIT_WORDS
        and all(char.isalpha() or char in UNIT_SIGNS for char in text)
        and not NOT_UNITS.intersection(words)
        and not CHINESE_MULTIPLIERS.intersection(text)
    )
