"""What a run's algorithm may be: `configs/algorithm/*.yaml`, and the section `algorithm` of a training config.

Guarantees: a combination that has no meaning is refused in one line. Pure.
Formulas and sources are in docs/learner.md.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from evidence.config_checks import require, require_above_zero, require_default, require_least, require_one_of
from evidence.errors import BadInput
from evidence.functions import load_function
from learner.aggregation import AGGREGATES

BASELINES = ("group", "rloo", "none")
POLICIES = ("behaviour", "recomputed", "interpolated")
LEVELS = ("token", "sequence")
# Of a correction, with the keys that each listens to.
MODES = {
    "none": (),
    "plain": ("level",),
    "truncate": ("level", "high"),
    "mask": ("level", "low", "high"),
    "reject": ("level", "low", "high"),
}
ESTIMATORS = ("k1", "k2", "k3")
# Open-o3-Video's, on the argument of k3: exp of more than that is no price any more, but an accident.
KL_BOUND = 10.0


@dataclass(frozen=True)
class Rules:
    """What a loss can be combined with.

    proximal: policies that its ratio may be taken against. levels: of a correction. clips: whether it has a clip.
    why: said of what is not in these."""

    proximal: tuple[str, ...]
    levels: tuple[str, ...]
    clips: bool
    why: str


RULES = {
    "grpo": Rules(POLICIES, LEVELS, True, ""),
    "gspo": Rules(
        ("behaviour", "interpolated"),
        ("sequence",),
        True,
        "its ratio is a sequence's, and against the recomputed policy it is always 1, which is reinforce",
    ),
    "cispo": Rules(("behaviour",), (), True, "its clipped ratio is the importance correction already"),
    "reinforce": Rules(("behaviour", "recomputed"), LEVELS, False, "it has no clip for a policy between the two"),
}
OWN = Rules(("behaviour",), (), False, "a loss of your own does that itself: give it what it needs as options")


@dataclass(frozen=True)
class Proximal:
    """The policy that clipping keeps the current one near to, pi_prox.

    policy: `behaviour`, which drew the tokens; `recomputed`, the current one as the step begins; `interpolated`,
    log pi_prox = alpha log mu + (1 - alpha) log pi.
    """

    SHORT = "policy"

    policy: str = "behaviour"
    alpha: float = 0.5

    def __post_init__(self) -> None:
        require_one_of(self, POLICIES, "policy")
        require(0 < self.alpha < 1, "alpha", self.alpha, "above 0 and below 1")
        if self.policy != "interpolated":
            require_default(self, f"policy {self.policy} has no alpha", "alpha")


@dataclass(frozen=True)
class Correction:
    """What is made of w = pi_prox / mu, a token's or (the product) a sequence's.

    mode: none: 1. plain: w. truncate: min(w, high). mask: w, but 0 outside [low, high]. reject: 1, but 0 for all of a
    sequence of which some token's w (level token) or the geometric mean of w (level sequence) is outside [low, high].
    """

    mode: str = "none"
    level: str = "token"
    low: float = 0.5
    high: float = 2.0

    def __post_init__(self) -> None:
        require_one_of(self, MODES, "mode")
        require_one_of(self, LEVELS, "level")
        require(0 <= self.low < 1, "low", self.low, "at least 0 and below 1")
        require(1 < self.high < math.inf, "high", self.high, "above 1, and finite")
        unheard = [key for key in ("level", "low", "high") if key not in MODES[self.mode]]
        require_default(self, f"with mode {self.mode} it has no effect", *unheard)


@dataclass(frozen=True)
class KL:
    """The price of leaving the reference policy: coefficient times k1, k2 or k3 of each token, in the loss or taken
    off the completion's reward."""

    coefficient: float = 0.0
    estimator: str = "k3"
    where: str = "loss"

    def __post_init__(self) -> None:
        require_least(self, 0, "coefficient")
        require_one_of(self, ESTIMATORS, "estimator")
        require_one_of(self, ("loss", "reward"), "where")
        if self.coefficient and (self.estimator, self.where) == ("k1", "loss"):
            raise BadInput(
                "estimator = k1: in a loss its gradient is zero in expectation; take k2 or k3, or where: reward"
            )


@dataclass(frozen=True)
class AlgorithmConfig:
    """How rewards become a gradient.

    recipe: a file of configs/algorithm/, or a path, to start from; empty once it has been read.
    loss: grpo, gspo, cispo or reinforce, or a loss of your own as module:function, with its `options`.
    clip_low, clip_high: the ratio is clipped to [1 - clip_low, 1 + clip_high].
    aggregate: of tokens: sequence_mean, token_mean or constant. max_length: the constant is completions times
        max_length; sampling.max_tokens if null.
    baseline: what a reward is compared with: the mean of its group, that of the others in it (rloo), or none.
    divide_by_std: advantages over the group's standard deviation.
    dynamic_sampling: groups of equal rewards are replaced by other prompts.
    entropy: coefficient of the entropy bonus.
    """

    SHORT = "recipe"
    FOLDER = "algorithm"

    recipe: str = ""
    loss: str = "grpo"
    options: dict[str, Any] = field(default_factory=dict)
    clip_low: float = 0.2
    clip_high: float = 0.2
    aggregate: str = "sequence_mean"
    max_length: int | None = None
    baseline: str = "group"
    divide_by_std: bool = False
    dynamic_sampling: bool = False
    proximal: Proximal = field(default_factory=Proximal)
    correction: Correction = field(default_factory=Correction)
    kl: KL = field(default_factory=KL)
    entropy: float = 0.0

    def __post_init__(self) -> None:
        require(0 < self.clip_low <= 1, "clip_low", self.clip_low, "above 0, and at most 1")
        require_above_zero(self, "clip_high")
        require_one_of(self, AGGREGATES, "aggregate")
        if self.max_length is not None:
            require_least(self, 1, "max_length")
            require(self.aggregate == "constant", "max_length", self.max_length, "null: only `constant` divides by it")
        require_one_of(self, BASELINES, "baseline")
        require_least(self, 0, "entropy")
        if ":" in self.loss:
            own_loss(self.loss)
        else:
            known = f"one of {', '.join(RULES)}, or a loss of your own as module:function"
            require(self.loss in RULES, "loss", self.loss, known)
            require(not self.options, "options", self.options, f"empty: {self.loss} takes none")
        self._check_combination()

    def _check_combination(self) -> None:
        if self.baseline == "none":
            require(
                not self.divide_by_std, "divide_by_std", True, "false with baseline none: equal rewards have no std"
            )
            require(not self.dynamic_sampling, "dynamic_sampling", True, "false with baseline none: equal rewards push")
        if self.kl.coefficient and self.kl.where == "reward":
            why = "false with kl.where = reward: equal rewards differ by their price"
            require(not self.dynamic_sampling, "dynamic_sampling", True, why)
        rules, policy, mode = RULES.get(self.loss, OWN), self.proximal.policy, self.correction.mode
        allowed = " or ".join(rules.proximal)
        require(policy in rules.proximal, "proximal.policy", policy, f"{allowed} with {self.loss}: {rules.why}")
        if mode != "none":
            require(bool(rules.levels), "correction.mode", mode, f"none with {self.loss}: {rules.why}")
            level, levels = self.correction.level, " or ".join(rules.levels)
            require(level in rules.levels, "correction.level", level, f"{levels} with {self.loss}: {rules.why}")
            require(
                policy != "behaviour",
                "correction.mode",
                mode,
                "none while proximal is behaviour: pi_prox / mu is 1 then; set proximal to recomputed or interpolated",
            )
        if not rules.clips:
            require_default(self, f"{self.loss} has no clip", "clip_low", "clip_high")
        elif policy == "recomputed":
            require_default(self, "against the recomputed policy the ratio is 1", "clip_low", "clip_high")
        if rules is OWN:
            require(not self.entropy, "entropy", self.entropy, f"0 with {self.loss}: {rules.why}")
            in_loss = self.kl.coefficient if self.kl.where == "loss" else 0.0
            require(not in_loss, "kl.coefficient", in_loss, f"0 with {self.loss}, or where: reward: {rules.why}")


def own_loss(name: str) -> Callable[..., Any]:
    """The function that module:function names. Raises BadInput unless it takes (output, targets, options)."""
    function = load_function("loss", name)
    try:
        inspect.signature(function).bind(None, None, {})
    except (TypeError, ValueError):  # it does not take three arguments, or nothing is known of what it takes
        wanted = f"def {name.partition(':')[2]}(output, targets, options)"
        raise BadInput(f"loss = {name}: it has to be written as {wanted}") from None
    return function
