"""The policy in the learner: maps packed rows to log-probs of the scored tokens.

Guarantees: the distribution is the engine's (promise 4): the same banned set, the same logit bias, then the same
temperature, over the same kept set where sampling was truncated. All logits are never in memory at once
(learner/model/head). With or without images, every rank runs the same sharded layers in the same order, which ZeRO-3's
collectives require.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from evidence.errors import BadInput
from evidence.families import family_of
from learner.losses import PolicyOutput
from learner.model.attention import FLEX, PACKED, padded_length, seen_by
from learner.model.head import ScoringHead
from learner.model.lora import add_adapters, checkpoint_name
from learner.model.vision import Features, FrozenTower, Pixels, dummy_image, encode, place, set_patches
from learner.packing.batch import Batch
from learner.settings import PolicyConfig


class Rows(NamedTuple):
    """The tensors of a Batch (shapes there) that describe its tokens and the places of image sets among them.

    set_patches: int64 [S], patches of each image set. kept: None for a batch drawn from the whole vocabulary."""

    token_ids: torch.Tensor
    positions: torch.Tensor
    segment: torch.Tensor
    branch: torch.Tensor
    predict_from: torch.Tensor
    targets: torch.Tensor
    set_patches: torch.Tensor
    image_of: torch.Tensor
    kept: torch.Tensor | None = None

    @classmethod
    def of(cls, batch: Batch, device: torch.device | str = "cpu") -> Rows:
        tokens = (batch.token_ids, batch.positions, batch.segment, batch.branch, batch.predict_from, batch.targets)
        kept = () if batch.kept is None else (batch.kept,)
        arrays = (*tokens, set_patches(batch), batch.image_of, *kept)
        # np.array copies: arrays from the object store are read-only.
        return cls(*(torch.from_numpy(np.array(array)).to(device) for array in arrays))

    def padded_to(self, length: int) -> Rows:
        """The same rows with padding up to `length` tokens at their ends."""
        before = self.token_ids.shape[1]

        def padded(tokens: torch.Tensor, value: int) -> torch.Tensor:
            return nn.functional.pad(tokens, (0, length - before), value=value)

        return self._replace(
            token_ids=padded(self.token_ids, 0),
            positions=padded(self.positions, 0),
            segment=padded(self.segment, -1),
            branch=padded(self.branch, -1),
            predict_from=self.predict_from // before * length + self.predict_from % before,
        )


class Policy(nn.Module):
    """A model of a supported family (evidence/families), from transformers, behind one forward."""

    def __init__(
        self, model: PreTrainedModel, banned_ids: Sequence[int], config: PolicyConfig, attention: str = PACKED
    ):
        """attention: of the language model (learner/model/attention). Raises BadInput for a model of another family
        and for sliding-window attention."""
        super().__init__()
        self.family = family = family_of(model.config.model_type, "model")
        window_key = family.sliding_window_key
        if window_key is not None and getattr(model.config.get_text_config(), window_key):
            raise BadInput(
                f"model: {window_key} is true: must be false, packed attention has no window; set it in config.json"
            )
        self.config = config
        self.model = model
        self.attention = attention
        model.set_attn_implementation({"text_config": attention})
        keys = (family.image_token_key, family.video_token_key)
        self.image_token, self.video_token = (int(getattr(model.config, key)) for key in keys)
        self.sizes = family.vision_sizes(model.config)
        lm_head = model.get_submodule(family.head)
        assert isinstance(lm_head, nn.Linear)
        self.head = ScoringHead(lm_head, banned_ids, config.logit_chunk_mib)
        self._tower.requires_grad_(config.train_vision)
        if config.lora is not None:
            add_adapters(model, family, config.lora)
        if config.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            self.train()  # transformers only checkpoints in training mode; the models have no dropout
        # If set, it computes the features before `forward`, and the model has no tower of its own.
        self.frozen_tower: FrozenTower | None = None

    def take_tower(self) -> nn.Module:
        """Remove the vision tower from the model and return it. The caller must set `frozen_tower`."""
        tower = self._tower
        parent, _, name = self.family.vision_tower.rpartition(".")
        delattr(self.model.get_submodule(parent), name)
        return tower

    @property
    def _tower(self) -> nn.Module:
        return self.model.get_submodule(self.family.vision_tower)

    def forward(self, rows: Rows, shown: Pixels | Features | None, temperature: float) -> PolicyOutput:
        """Log-probs and entropies of `rows.targets`, float32 [N] each. shown: the image sets of `rows`, concatenated;
        None if there are none."""
        if self.attention == FLEX:
            rows = rows.padded_to(padded_length(rows.token_ids.shape[1]))
        embeds = self.model.get_input_embeddings()(rows.token_ids)
        features, zero = self._features(shown, embeds.device)
        if zero is not None:
            embeds = embeds + zero.to(embeds.dtype)
        deepstack = {}
        if features is not None:
            placed = place(features, rows.set_patches // self.sizes.merge**2, rows.image_of)
            image = (rows.token_ids == self.image_token) | (rows.token_ids == self.video_token)
            visual = image & (rows.segment >= 0)
            if (places := int(visual.sum())) != len(placed.tokens):  # masked_scatter ignores surplus features
                raise ValueError(f"{len(placed.tokens)} features of images for {places} places in the rows")
            embeds = embeds.masked_scatter(visual[..., None], placed.tokens.to(embeds.dtype))
            if self.family.deepstack:  # features of earlier vision layers, added after the first layers
                deepstack = {"visual_pos_masks": visual, "deepstack_visual_embeds": list(placed.deepstack)}
        hidden = self.model.get_submodule(self.family.language_model)(
            inputs_embeds=embeds,
            position_ids=rows.positions,
            use_cache=False,
            **seen_by(self.attention, rows.segment, rows.branch),
            **deepstack,
        ).last_hidden_state
        scored = hidden.flatten(0, 1)[rows.predict_from]
        return PolicyOutput(*self.head(scored, rows.targets, temperature, rows.kept))

    def _features(
        self, shown: Pixels | Features | None, device: torch.device
    ) -> tuple[Features | None, torch.Tensor | None]:
        """(features, None); or (None, a zero that depends on the tower) if a trained tower has nothing to encode. The
        tower is sharded, so a rank that skipped it in the forward or backward would block the others' gathers."""
        if isinstance(shown, Features):
            return shown, None
        if shown is not None:
            return encode(self._tower, shown, self.family.deepstack), None
        if not self.config.train_vision:
            return None, None
        dummy = encode(self._tower, dummy_image(self.sizes, device), self.family.deepstack)
        return None, torch.stack([part.sum() for part in (dummy.tokens, *dummy.deepstack)]).sum() * 0

    def checkpoint_parameters(self, frozen: bool) -> dict[str, nn.Parameter]:
        """Parameters by checkpoint name (adapters': learner/model/lora). Tied ones appear once, frozen ones only if
        `frozen`."""
        named = {checkpoint_name(name): p for name, p in self.model.named_parameters()}
        if self.frozen_tower is not None:
            tower = self.family.vision_tower
            named |= {f"{tower}.{name}": p for name, p in self.frozen_tower.module.named_parameters()}
        return {name: p for name, p in named.items() if frozen or p.requires_grad}
