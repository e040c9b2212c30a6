"""Early signs that a run goes wrong or that its policy games the reward, seen in its metrics alone. Pure.

Each rule compares the newest lines of metrics.jsonl with the first ones of the run, or with each other, and says what
is wrong, or nothing. A rule whose metrics a run does not have is silent. What each alert calls for is in
docs/dashboards.md. Their false alarms are counted by `python -m benchmarks.alerts RUN ...`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean, median
from typing import Any

from orchestration.reporting.display import clock

Line = Mapping[str, Any]
# The first lines of a run are what later ones are compared with; the newest RECENT of the last LAST lines are compared,
# since single steps differ by their prompts.
FIRST, LAST, RECENT = 10, 20, 10

STALL_FACTOR, STALL_S = 10.0, 60.0  # of the median step; steps of seconds vary by more on a busy machine
MISSING_SHARE, LEAST_ASKED = 0.05, 20  # a referee that works misses none
ENTROPY_SHARE = 0.4  # of the first steps' entropy
LENGTH_FACTOR = 1.75  # honest runs of the embedded world grow by up to a third
CUT_SHARE = 0.2  # more completions cut at the limit than in the first steps
PHRASE_SHARE, PHRASE_RISE = 0.5, 0.3  # of the groups that use one phrase, and how much more than in the first steps


def stall(first: Sequence[Line], last: Sequence[Line]) -> str | None:
    """The last step took many times the median, most of it waiting."""
    step_s, wait_s = _number(last[-1], "time/step_s"), _number(last[-1], "time/wait_s")
    before = _known(last[:-1], "time/step_s")
    if step_s is None or wait_s is None or len(before) < RECENT:
        return None
    usual = median(before)
    if step_s > max(STALL_S, STALL_FACTOR * usual) and wait_s > step_s / 2:
        return f"the step took {clock(step_s)}, {clock(wait_s)} of it waiting for groups; {clock(usual)} is usual"
    return None


def agreement(first: Sequence[Line], last: Sequence[Line]) -> str | None:
    """The reward rises while the referee's agreement with labelled boxes falls (referee/trust/agreement)."""
    if not _number(last[-1], "agreement/alarm"):
        return None
    return "the reward rises while its correlation with labelled boxes falls"


def missing_verdicts(first: Sequence[Line], last: Sequence[Line]) -> str | None:
    """Too many claims had no verdict, so that terms are left out or, in `ser score`, defaults stand in."""
    asked, missing = _rise(last, "evidence/asked"), _rise(last, "evidence/missing")
    if asked < LEAST_ASKED or missing <= MISSING_SHARE * asked:
        return None
    return f"{missing:.0f} of {asked:.0f} claims of the last {len(last)} steps have no verdict"


def not_finite(first: Sequence[Line], last: Sequence[Line]) -> str | None:
    """A step was skipped, or a number that every step has is not finite."""
    if skipped := _rise(last[-2:], "learner/skipped"):
        return f"{skipped:.0f} steps were skipped since the last one: loss or gradient was not finite"
    names = [name for name in ("reward", "learner/loss", "learner/grad_norm") if name in last[-1]]
    broken = [name for name in names if _number(last[-1], name) is None]
    return f"{', '.join(broken)}: not a finite number" if broken else None


def entropy_collapse(first: Sequence[Line], last: Sequence[Line]) -> str | None:
    """The policy's entropy is a fraction of what it was."""
    before, now = _compared(_means(first, "learner/entropy"), _means(last, "learner/entropy"), "learner/entropy")
    if before is None or now is None or now >= ENTROPY_SHARE * before:
        return None
    return f"the entropy fell from {before:.3f} to {now:.3f} nats: the policy hardly explores any more"


def length_drift(first: Sequence[Line], last: Sequence[Line]) -> str | None:
    """Completions are much longer or shorter than they were, or are cut at the limit."""
    before, now = _compared(first, last, "rollout/tokens")
    cut_before, cut_now = _compared(first, last, "rollout/cut_short")
    if before and now is not None and not 1 / LENGTH_FACTOR <= now / before <= LENGTH_FACTOR:
        return f"completions went from {before:.0f} to {now:.0f} tokens"
    if cut_before is not None and cut_now is not None and cut_now > cut_before + CUT_SHARE:
        return f"completions cut at the greatest length went from {cut_before:.0%} to {cut_now:.0%}"
    return None


def one_phrase(first: Sequence[Line], last: Sequence[Line]) -> str | None:
    """One phrase names the object of most prompts' claims, which it did not at first."""
    before, now = _compared(first, last, "claims/top_phrase_share")
    if before is None or now is None or now <= max(PHRASE_SHARE, before + PHRASE_RISE):
        return None
    phrase = last[-1].get("claims/top_phrase", "")
    return f"one phrase names the object in {now:.0%} of the prompts, {before:.0%} at first; now it is {phrase!r}"


Rule = Callable[[Sequence[Line], Sequence[Line]], str | None]
RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (stall, agreement, missing_verdicts, not_finite, entropy_collapse, length_drift, one_phrase)
}


@dataclass(frozen=True)
class Alert:
    """`name`: of its rule. `text`: what is wrong, in one line."""

    name: str
    text: str


class AlertWatch:
    """Applies the rules to a run, line by line. Its results depend on the lines alone."""

    def __init__(self, lines: Iterable[Line] = ()):
        """`lines`: those of the run so far."""
        self._first: list[Line] = []
        self._last: deque[Line] = deque(maxlen=LAST)
        for line in lines:
            self._add(line)

    def step(self, line: Line, reasons: Mapping[str, str | None] | None = None) -> tuple[dict[str, float], list[Alert]]:
        """(`alert/NAME` for each rule: 1 if it holds at this line, else 0; the alerts to raise). A rule that has held
        within the last LAST lines raises none. `reasons`: by rule, texts that say more than the metrics."""
        last = [*self._last, line][-LAST:]
        texts = {name: rule(self._first, last) for name, rule in RULES.items()}
        flags = {f"alert/{name}": float(text is not None) for name, text in texts.items()}
        raised = [
            Alert(name, (reasons or {}).get(name) or text)
            for name, text in texts.items()
            if text is not None and not any(before.get(f"alert/{name}") for before in self._last)
        ]
        self._add({**line, **flags})
        return flags, raised

    def _add(self, line: Line) -> None:
        if len(self._first) < FIRST:
            self._first.append(line)
        self._last.append(line)


def _number(line: Line, name: str) -> float | None:
    """A finite number of a line, else None."""
    value = line.get(name)
    return float(value) if isinstance(value, int | float) and isfinite(value) else None


def _means(lines: Sequence[Line], name: str) -> list[Line]:
    """The lines with a weighted sum over tokens as a mean. With `aggregate: constant`, the weights of shorter
    completions add up to less than 1."""
    weights = [_number(line, "learner/weight") or 1.0 for line in lines]
    sums = [_number(line, name) for line in lines]
    return [{**line, name: total / weight} for line, total, weight in zip(lines, sums, weights) if total is not None]


def _known(lines: Sequence[Line], name: str) -> list[float]:
    return [value for line in lines if (value := _number(line, name)) is not None]


def _rise(lines: Sequence[Line], name: str) -> float:
    """By how much a total rose over the lines, from 0 if the first is that of the run; 0 if it is unknown, or fell
    since the run went back."""
    known = _known(lines, name)
    before = 0.0 if lines[0].get("step") == 1 else known[0] if known else 0.0
    return max(0.0, known[-1] - before) if known else 0.0


def _compared(first: Sequence[Line], last: Sequence[Line], name: str) -> tuple[float | None, float | None]:
    """The means over the first lines of the run and over the newest RECENT; None unless these come later, and if fewer
    than half of the lines hold a value."""
    recent = last[-RECENT:]
    if len(first) < FIRST or len(recent) < RECENT or recent[0]["step"] <= first[-1]["step"]:
        return None, None
    then, now = _known(first, name), _known(recent, name)
    return (fmean(then) if 2 * len(then) >= FIRST else None), (fmean(now) if 2 * len(now) >= RECENT else None)
