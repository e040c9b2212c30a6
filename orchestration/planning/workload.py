"""What one group of a config amounts to: tokens of its prompt, images, lengths of its completions, claims. Pure.

A plan reads no data, so what the data decides is assumed here, once, and printed with each plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from learner.settings import PackingConfig
from orchestration.planning.shapes import Shape
from orchestration.settings import TrainConfig

# Completions: lognormal, this share of max_tokens long on average, with this sigma of the logarithm, cut at max_tokens.
MEAN_LENGTH, LENGTH_SIGMA = 0.4, 0.5
QUESTION_TOKENS = 256  # chat template, instructions and question
FRAME_TOKENS = 16  # text beside each frame: its markers, index and time
CLAIMS = 2.0  # of a completion
CLAIM_QUESTIONS = 2  # relevance and localisation
CLAIM_TOKENS = 80  # text of one question about a claim

Lengths = Callable[[Random], int]


@dataclass(frozen=True)
class Workload:
    """One group. prompt: tokens. images: of the prompt, `image_tokens` tokens each. completions: in the group, whose
    lengths `lengths` draws; at most `longest` tokens each. claims: of one completion."""

    prompt: int
    images: int
    image_tokens: int
    completions: int
    lengths: Lengths
    mean_length: float
    longest: int
    claims: float = CLAIMS

    @property
    def visual_tokens(self) -> int:
        return self.images * self.image_tokens

    @property
    def tokens(self) -> float:
        """Tokens that an engine computes for a group on average: the prompt once, and the completions."""
        return self.prompt + self.completions * self.mean_length

    def trained_tokens(self, packing: PackingConfig, lengths: Sequence[int]) -> int:
        """Tokens that the learner runs for a group whose completions have these lengths."""
        prompts = 1 if packing.mode == "prefix" else len(lengths)
        return prompts * self.prompt + sum(lengths)

    def trained_pairs(self, packing: PackingConfig, mean: float) -> float:
        """Pairs of a query and a key that it attends to, for completions of `mean` tokens: each sees the prompt and
        itself; the prompt is run once or for each."""
        prompts = 1 if packing.mode == "prefix" else self.completions
        return prompts * self.prompt**2 / 2 + self.completions * mean * (self.prompt + mean / 2)


def lognormal(mean: float, sigma: float, longest: int) -> Lengths:
    """Lengths of at least 1 and at most `longest`, `mean` on average before the cut."""
    mu = math.log(mean) - sigma**2 / 2
    return lambda rng: max(1, min(longest, round(rng.lognormvariate(mu, sigma))))


def workload_of(config: TrainConfig, policy: Shape) -> Workload:
    """The group of a config with full frames."""
    contract, sampling = config.contract, config.sampling
    pixels = min(contract.max_pixels, contract.total_pixels // contract.frames)
    image_tokens = max(1, pixels // policy.vision.tile**2)
    images = contract.frames
    if config.template.native_video:
        images = math.ceil(images / policy.vision.step_frames)
    mean = max(1.0, MEAN_LENGTH * sampling.max_tokens)
    return Workload(
        prompt=QUESTION_TOKENS + images * (image_tokens + FRAME_TOKENS),
        images=images,
        image_tokens=image_tokens,
        completions=sampling.group_size,
        lengths=lognormal(mean, LENGTH_SIGMA, sampling.max_tokens),
        mean_length=mean,
        longest=sampling.max_tokens,
    )


def assumptions() -> list[str]:
    """What a plan assumes of the data, one line each."""
    return [
        f"completions are {MEAN_LENGTH:.0%} of sampling.max_tokens long on average (lognormal, sigma {LENGTH_SIGMA:g})",
        f"every video fills contract.frames and contract.max_pixels; a prompt has {QUESTION_TOKENS} tokens of text and "
        f"{FRAME_TOKENS} for each frame",
        f"a completion makes {CLAIMS:g} claims, about which the referee is asked {CLAIM_QUESTIONS} questions each",
    ]
