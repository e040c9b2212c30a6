"""Settings of the algorithm: `configs/algorithm/*.yaml`, and the section `algorithm` of a training config.

The names of losses, corrections and KL estimators are declared here; learner/losses looks up their functions by name.
Guarantees: a combination without meaning is refused with a one-line message. Light to import: no torch.
Formulas and sources are in docs/learner.md. Pure.
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
# Modes of a correction, with the keys that have an effect in each.
MODES = {
    "none": (),
    "plain": ("level",),
    "truncate": ("level", "high"),
    "mask": ("level", "low", "high"),
    "reject": ("level", "low", "high"),
}
ESTIMATORS = ("k1", "k2", "k3")
# Bound on the log-ratio in k3, as in Open-o3-Video: beyond it, exp would let a single token dominate the loss.
KL_BOUND = 10.0
# Bound on the log of every probability ratio, of a token or of a sequence, before exp: as in verl (core_algos.py and
# rollout_corr_helper.py). It lies far outside any clip, and far below what float32 can hold.
LOG_RATIO_BOUND = 20.0


@dataclass(frozen=True)
class Rules:
    """What a loss can be combined with.

    proximal: policies allowed in the denominator of its ratio. levels: allowed levels of a correction. clips: whether
    it clips. why: the reason given when a combination is refused."""

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
OWN = Rules(("behaviour",), (), False, "your own loss does that itself; pass it what it needs as options")


@dataclass(frozen=True)
class Proximal:
    """The proximal policy pi_prox, near which clipping keeps the current policy.

    policy: `behaviour`, the policy mu that drew the tokens; `recomputed`, the current policy at the start of the step;
    `interpolated`, log pi_prox = alpha log mu + (1 - alpha) log pi. alpha: of `interpolated`.
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
    """The off-policy correction: a factor made of w = pi_prox / mu.

    mode: `none`, 1; `plain`, w; `truncate`, min(w, high); `mask`, w, but 0 outside [low, high]; `reject`, 1, but 0 for
        a whole sequence if w of any token (level token) or the geometric mean of w (level sequence) is outside
        [low, high].
    level: whether w is of each token, or of each sequence, as the product of its tokens'.
    low, high: bounds of w.
    """

    mode: str = "none"
    level: str = "token"
    low: float = 0.5
    high: float = 2.0

    def __post_init__(self) -> None:
        require_one_of(self, MODES, "mode")
        require_one_of(self, LEVELS, "level")
        # Ratios are bounded to exp(+-LOG_RATIO_BOUND), so that a limit beyond would never apply.
        least, most = math.exp(-LOG_RATIO_BOUND), math.exp(LOG_RATIO_BOUND)
        in_range = self.low == 0 or least < self.low < 1
        require(in_range, "low", self.low, f"at least 0 and below 1; 0, or above {least:.2g}, the least ratio")
        require(1 < self.high < most, "high", self.high, f"above 1, and below {most:.2g}, the highest ratio")
        unused = [key for key in ("level", "low", "high") if key not in MODES[self.mode]]
        require_default(self, f"with mode {self.mode} it has no effect", *unused)


@dataclass(frozen=True)
class KL:
    """The penalty on divergence from the reference policy. coefficient: its factor; 0 is no penalty. estimator: k1, k2
    or k3 of each token. where: added to the loss, or subtracted from the completion's reward."""

    coefficient: float = 0.0
    estimator: str = "k3"
    where: str = "loss"

    def __post_init__(self) -> None:
        require_least(self, 0, "coefficient")
        require_one_of(self, ESTIMATORS, "estimator")
        require_one_of(self, ("loss", "reward"), "where")
        if self.coefficient and (self.estimator, self.where) == ("k1", "loss"):
            raise BadInput(
                "estimator = k1: its gradient in a loss is zero in expectation; use k2 or k3, or where: reward"
            )


@dataclass(frozen=True)
class AlgorithmConfig:
    """How rewards become a gradient.

    recipe: a file of configs/algorithm/, or a path, to start from; empty once it has been read.
    loss: grpo, gspo, cispo or reinforce, or your own loss as module:function. options: its keyword arguments.
    clip_low, clip_high: the ratio is clipped to [1 - clip_low, 1 + clip_high].
    aggregate: how tokens are aggregated: sequence_mean, token_mean or constant.
    max_length: for `constant`, which divides by completions * max_length; null is sampling.max_tokens.
    baseline: what is subtracted from a reward: the mean of its group (group), the mean of the others in its group
        (rloo), or nothing (none).
    divide_by_std: divide advantages by the group's standard deviation.
    dynamic_sampling: replace groups of equal rewards by other prompts.
    overlong_filtering: do not train on a completion that was cut at sampling.max_tokens. It counts in its group's
        baseline and standard deviation.
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
    overlong_filtering: bool = False
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
            require(self.aggregate == "constant", "max_length", self.max_length, "null; only `constant` divides by it")
        require_one_of(self, BASELINES, "baseline")
        require_least(self, 0, "entropy")
        if ":" in self.loss:
            own_loss(self.loss)
        else:
            known = f"one of {', '.join(RULES)}, or your own loss as module:function"
            require(self.loss in RULES, "loss", self.loss, known)
            require(not self.options, "options", self.options, f"empty: {self.loss} takes none")
        self._check_combination()

    def _check_combination(self) -> None:
        if self.baseline == "none":
            why = "false with baseline none: the std of equal rewards is 0"
            require(not self.divide_by_std, "divide_by_std", True, why)
            why = "false with baseline none: equal rewards have advantages, too"
            require(not self.dynamic_sampling, "dynamic_sampling", True, why)
        if self.kl.coefficient and self.kl.where == "reward":
            why = "false with kl.where = reward: the penalty makes equal rewards differ"
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
                "none while proximal is behaviour, since pi_prox / mu is 1; set proximal to recomputed or interpolated",
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
    """Load the function named module:function. Raises BadInput unless it takes (output, targets, options)."""
    function = load_function("loss", name)
    try:
        inspect.signature(function).bind(None, None, {})
    except (TypeError, ValueError):  # it does not take three arguments, or has no signature to inspect
        wanted = f"def {name.partition(':')[2]}(output, targets, options)"
        raise BadInput(f"loss = {name}: must be defined as {wanted}") from None
    return function
