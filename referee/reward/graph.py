"""The reward graph: a recipe's terms, computed in order for one group of completions, gated, weighted and summed.

Guarantees: every term's raw value is kept, whether it was paid or not. A missing value (NaN) never becomes a number:
its term, and every term gated on it, is left out for the whole group and counted. A term that returns anything but one
number per completion ends the run. Pure: equal views give equal rewards.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from evidence.errors import BadInput, RunFailed
from evidence.types import ClaimScore
from referee.reward.binding import bound_term
from referee.reward.ser import Ser, claim_counts
from referee.reward.settings import RewardConfig
from referee.terms.view import GroupView, needs_of


@dataclass(frozen=True)
class GroupReward:
    """Rewards of the G completions of one prompt.

    rewards: float32 [G], the sum over `paid` of weights * paid.
    terms: raw values, float32 [G] each, NaN where a value is missing.
    paid: values after gating, float32 [G] each: 0 where a gate is closed, without the terms left out.
    weights: the weight of each paid term, with its schedule applied.
    left_out: names of the terms left out.
    evidence: per completion one ClaimScore for each complete claim; empty without a SER term.
    counts: those of `claim_counts`, and `left out: TERM`.
    """

    rewards: np.ndarray
    terms: dict[str, np.ndarray]
    paid: dict[str, np.ndarray]
    weights: dict[str, float]
    left_out: tuple[str, ...]
    evidence: tuple[tuple[ClaimScore, ...], ...]
    counts: dict[str, int] = field(default_factory=dict)


class RewardGraph:
    """A recipe bound to its terms' functions. Raises BadInput for a recipe that cannot be computed."""

    def __init__(self, config: RewardConfig):
        self.config = config
        self._terms: dict[str, Callable[..., Any]] = {}
        self.ser: Ser | None = None
        for name, term in config.terms.items():
            where = f"reward.terms.{name}"
            bound = bound_term(where, term.use or name, term.options)
            self._require_of(where, bound)
            if isinstance(bound, Ser):
                if self.ser is not None:
                    raise BadInput(f"{where}: must be the only ser term; remove one of them")
                self.ser = bound
            self._terms[name] = bound

    @property
    def needs(self) -> frozenset[str]:
        """The inputs that a view must provide for all terms: names from referee.terms.view.NEEDS."""
        return frozenset().union(*(needs_of(_function(term)) for term in self._terms.values()))

    def needs_for(self, task: str) -> frozenset[str]:
        """Like `needs`, for the terms that apply to samples of this task."""
        applicable = [term for name, term in self._terms.items() if self._applies(name, task)]
        return frozenset().union(*(needs_of(_function(term)) for term in applicable))

    def score(self, view: GroupView) -> GroupReward:
        """Rewards of one group. Raises RunFailed for a term that fails or returns anything but one finite number or
        NaN per completion."""
        if view.contrast is not None:
            # Completions on shuffled frames have no verdicts: only terms that need nothing but the text are computed.
            plain = {name: term for name, term in self._terms.items() if not _beyond_text(term)}
            view = replace(view, contrast=replace(view.contrast, terms=self._raw(view.contrast, plain)[0]))
        terms, evidence = self._raw(view, self._terms)
        left_out = [name for name, values in terms.items() if np.isnan(values).any()]
        unknown = set(left_out)
        left_out += [n for n, term in self.config.terms.items() if n not in unknown and unknown & set(term.gate)]
        paid = {name: self._paid(name, terms) for name in terms if name not in left_out}
        weights = {n: t.weight * t.factor(view.progress) for n, t in self.config.terms.items() if n in paid}
        rewards = np.zeros(len(view.completions), np.float64)
        for name, values in paid.items():
            rewards += weights[name] * values
        counts = claim_counts(view.completions, view.verdicts, evidence) if self.ser is not None else {}
        return GroupReward(
            rewards=rewards.astype(np.float32),
            terms=terms,
            paid=paid,
            weights=weights,
            left_out=tuple(left_out),
            evidence=evidence,
            counts=counts | {f"left out: {name}": 1 for name in left_out},
        )

    def _require_of(self, where: str, bound: Callable[..., Any]) -> None:
        """Raise BadInput unless a term's option `of` names a term that is computed before it."""
        of = getattr(bound, "keywords", {}).get("of")
        if of is None:
            return
        needed = needs_of(_function(bound))
        readable = [n for n, t in self._terms.items() if "contrast" not in needed or not _beyond_text(t)]
        if of not in readable:
            raise BadInput(
                f"{where}.options.of = {of}: must be a term listed before this one"
                f"{' that needs no referee' if 'contrast' in needed else ''}: {', '.join(readable) or 'there is none'}"
            )

    def _raw(
        self, view: GroupView, chosen: dict[str, Callable[..., Any]]
    ) -> tuple[dict[str, np.ndarray], tuple[tuple[ClaimScore, ...], ...]]:
        """Raw values of the chosen terms, each seeing those before it, and the evidence of the SER term."""
        values: dict[str, np.ndarray] = {}
        evidence: tuple[tuple[ClaimScore, ...], ...] = ((),) * len(view.completions)
        for name, term in chosen.items():
            if not self._applies(name, view.sample.task):
                values[name] = np.zeros(len(view.completions), np.float32)
                continue
            view_before = replace(view, terms=dict(values))
            if term is self.ser:
                scored = term.evidence(view_before)
                evidence = tuple(scores for scores, _ in scored)
                returned: Any = [np.nan if total is None else total for _, total in scored]
            else:
                returned = _called(name, term, view_before)
            values[name] = _as_values(name, returned, len(view.completions))
        return values, evidence

    def _applies(self, name: str, task: str) -> bool:
        tasks = self.config.terms[name].tasks
        return not tasks or task in tasks

    def _paid(self, name: str, terms: dict[str, np.ndarray]) -> np.ndarray:
        paid = terms[name]
        for other, least in self.config.terms[name].gate.items():
            paid = np.where(terms[other] >= least, paid, np.float32(0))
        return paid


def _function(term: Callable[..., Any]) -> Callable[..., Any]:
    """The function that carries a term's needs: the one behind its bound options, or the term itself."""
    return getattr(term, "func", term)


def _beyond_text(term: Callable[..., Any]) -> bool:
    """Whether a term needs more than the completions' text and the frames' times."""
    return bool(needs_of(_function(term)) - {"frames"})


def _called(name: str, term: Callable[..., Any], view: GroupView) -> Any:
    """The term's return value. Any other exception from a user-defined term becomes RunFailed with its place."""
    try:
        return term(view)
    except (BadInput, RunFailed):
        raise
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise RunFailed(
            f"reward.terms.{name}: {type(error).__name__}: {error} ({at.filename}, line {at.lineno})"
        ) from error


def _as_values(name: str, returned: Any, n: int) -> np.ndarray:
    """A term's return value as float32 [n]. Raises RunFailed unless it is `n` numbers, each finite or NaN."""
    values: np.ndarray
    try:
        values = np.asarray(returned, np.float32)
    except (TypeError, ValueError):
        values = np.empty(0, np.float32)
    if values.shape != (n,) or np.isinf(values).any():
        raise RunFailed(
            f"reward.terms.{name}: must return {n} finite numbers, one per completion, not {returned!r:.200}"
        )
    return values
