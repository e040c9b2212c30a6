"""The policy as the learner sees it: rows in, log-probs of the scored tokens out.

Guarantees: the distribution is the engine's (promise 4): the same banned set, by the same subtraction, before the same
temperature. Logits are never whole in memory (learner/model/head). Whatever a forward shows, each rank goes through the
same sharded layers in the same order, as ZeRO-3's collectives need.
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
from learner.model.attention import PACKED, seen_by
from learner.model.head import ScoringHead
from learner.model.lora import add_adapters, checkpoint_name
from learner.model.vision import Features, FrozenTower, Pixels, dummy_image, encode, place, set_patches
from learner.packing.batch import Batch
from learner.settings import PolicyConfig


class Rows(NamedTuple):
    """The tensors of a Batch (shapes there) that say where its tokens stand, and image sets among them.

    set_patches: int64 [S], patches of each image set."""

    token_ids: torch.Tensor
    positions: torch.Tensor
    segment: torch.Tensor
    branch: torch.Tensor
    predict_from: torch.Tensor
    targets: torch.Tensor
    set_patches: torch.Tensor
    image_of: torch.Tensor

    @classmethod
    def of(cls, batch: Batch, device: torch.device | str = "cpu") -> Rows:
        tokens = (batch.token_ids, batch.positions, batch.segment, batch.branch, batch.predict_from, batch.targets)
        arrays = (*tokens, set_patches(batch), batch.image_of)
        # np.array copies: arrays that came through the object store are read-only.
        return cls(*(torch.from_numpy(np.array(array)).to(device) for array in arrays))


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
                f"model: {window_key} is true, and packed attention has no window; set it to false in config.json"
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
            self.train()  # transformers checkpoints only then; the models have no dropout
        # Where there is one, it makes the features before `forward`, which runs without a tower in the model then.
        self.frozen_tower: FrozenTower | None = None

    def take_tower(self) -> nn.Module:
        """The vision tower out of the model; put a `frozen_tower` in its place."""
        tower = self._tower
        parent, _, name = self.family.vision_tower.rpartition(".")
        delattr(self.model.get_submodule(parent), name)
        return tower

    @property
    def _tower(self) -> nn.Module:
        return self.model.get_submodule(self.family.vision_tower)

    def forward(self, rows: Rows, shown: Pixels | Features | None, temperature: float) -> PolicyOutput:
        """float32 [N] each, of `rows.targets`. shown: the image sets of `rows`, one after another; None if there are
        none."""
        embeds = self.model.get_input_embeddings()(rows.token_ids)
        features, unseen = self._look(shown, embeds.device)
        if unseen is not None:
            embeds = embeds + unseen.to(embeds.dtype)
        deepstack = {}
        if features is not None:
            found = place(features, rows.set_patches // self.sizes.merge**2, rows.image_of)
            image = (rows.token_ids == self.image_token) | (rows.token_ids == self.video_token)
            visual = image & (rows.segment >= 0)
            if (there := int(visual.sum())) != len(found.tokens):  # masked_scatter would take what it needs
                raise ValueError(f"{len(found.tokens)} features of images for {there} places in the rows")
            embeds = embeds.masked_scatter(visual[..., None], found.tokens.to(embeds.dtype))
            if self.family.deepstack:  # features of earlier vision layers, added after the first layers
                deepstack = {"visual_pos_masks": visual, "deepstack_visual_embeds": list(found.deepstack)}
        hidden = self.model.get_submodule(self.family.language_model)(
            inputs_embeds=embeds,
            position_ids=rows.positions,
            use_cache=False,
            **seen_by(self.attention, rows.segment, rows.branch),
            **deepstack,
        ).last_hidden_state
        return PolicyOutput(*self.head(hidden.flatten(0, 1)[rows.predict_from], rows.targets, temperature))

    def _look(
        self, shown: Pixels | Features | None, device: torch.device
    ) -> tuple[Features | None, torch.Tensor | None]:
        """Features, and a zero that hangs on the tower where nothing is shown: a trained tower is sharded, so that a
        rank that left it out, in the forward or in the backward, would leave the others waiting in its gathers."""
        if isinstance(shown, Features):
            return shown, None
        if shown is not None:
            return encode(self._tower, shown, self.family.deepstack), None
        if not self.config.train_vision:
            return None, None
        dummy = encode(self._tower, dummy_image(self.sizes, device), self.family.deepstack)
        return None, torch.stack([part.sum() for part in (dummy.tokens, *dummy.deepstack)]).sum() * 0

    def checkpoint_parameters(self, frozen: bool) -> dict[str, nn.Parameter]:
        """Parameters by their checkpoint names (learner/model/lora for those of an adapter); tied ones once; frozen
        ones only if asked for."""
        named = {checkpoint_name(name): p for name, p in self.model.named_parameters()}
        if self.frozen_tower is not None:
            tower = self.family.vision_tower
            named |= {f"{tower}.{name}": p for name, p in self.frozen_tower.module.named_parameters()}
        return {name: p for name, p in named.items() if frozen or p.requires_grad}
