"""The policy as the learner sees it: rows in, log-probs of the scored tokens out.

Guarantees: the distribution is the engine's (promise 4): the same banned set, by the same subtraction, before the same
temperature. Logits exist only for scored tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from evidence.errors import BadInput
from evidence.sampling import BANNED_LOGIT_BIAS
from learner.attention import FLEX, block_mask, dense_mask


class Policy(nn.Module):
    """A Qwen2.5-VL or Qwen3-VL from transformers behind one forward."""

    def __init__(self, model: nn.Module, banned_ids: Sequence[int], train_vision: bool):
        """`model`: Qwen2_5_VL- or Qwen3VLForConditionalGeneration. Raises BadInput for sliding-window attention."""
        super().__init__()
        text = model.config.get_text_config()
        if getattr(text, "use_sliding_window", False):
            raise BadInput(
                "model: use_sliding_window is true, and transformers applies a packed mask to sliding layers "
                "unwindowed; set it to false in config.json"
            )
        self.model = model
        self.image_token, self.video_token = model.config.image_token_id, model.config.video_token_id
        self.merge = model.config.vision_config.spatial_merge_size
        self.mask = block_mask if text._attn_implementation == FLEX else dense_mask
        # Not persistent: it is no weight and must not enter checkpoints.
        self.register_buffer("banned", torch.tensor(list(banned_ids), dtype=torch.long), persistent=False)
        model.model.visual.requires_grad_(train_vision)

    def forward(
        self,
        token_ids: torch.Tensor,
        positions: torch.Tensor,
        segment: torch.Tensor,
        branch: torch.Tensor,
        predict_from: torch.Tensor,
        targets: torch.Tensor,
        patches: torch.Tensor,
        grids: torch.Tensor,
        set_sizes: torch.Tensor,
        image_of: torch.Tensor,
        temperature: float,
    ) -> torch.Tensor:
        """Log-probs float32 [N] of `targets` (shapes as in packing.batch.Batch; patches as in `Patcher`)."""
        inner = self.model.model
        embeds = self.model.get_input_embeddings()(token_ids)
        deepstack = {}
        if len(grids):
            vision = inner.visual(patches.to(embeds.dtype), grid_thw=grids)
            tokens = grids.prod(1) // self.merge**2
            sizes = [int(part.sum()) for part in tokens.split(set_sizes.tolist())]

            def placed(features: torch.Tensor) -> torch.Tensor:
                """Features of the image sets, one after another, where they stand."""
                parts = features.split(sizes)
                return torch.cat([parts[i] for i in image_of.tolist()])

            visual = ((token_ids == self.image_token) | (token_ids == self.video_token)) & (segment >= 0)
            embeds = embeds.masked_scatter(visual[..., None], placed(vision.pooler_output).to(embeds.dtype))
            if "deepstack_features" in vision:  # Qwen3-VL adds features of earlier vision layers after its first layers
                features = [placed(each) for each in vision.deepstack_features]
                deepstack = {"visual_pos_masks": visual, "deepstack_visual_embeds": features}
        hidden = inner.language_model(
            inputs_embeds=embeds,
            position_ids=positions,
            attention_mask=self.mask(segment, branch),
            use_cache=False,
            **deepstack,
        ).last_hidden_state
        logits = self.model.lm_head(hidden.flatten(0, 1)[predict_from]).float()
        logits = logits.index_add(1, self.banned, logits.new_full((len(logits), len(self.banned)), BANNED_LOGIT_BIAS))
        logits = logits / temperature
        chosen = logits.gather(1, targets[:, None])[:, 0]
        return chosen - logits.logsumexp(dim=1)
