"""Losses over scored tokens: inputs and outputs (tokens), one function per objective (objectives), bounded ratios
(ratios), off-policy corrections (importance), the divergence from the reference (kl), and their composition by a config
(build). Formulas and sources: docs/learner.md."""

from learner.losses.build import cross_entropy, make_loss
from learner.losses.tokens import Loss, LossResult, PolicyOutput, TokenTargets

__all__ = ["Loss", "LossResult", "PolicyOutput", "TokenTargets", "cross_entropy", "make_loss"]
