"""Transformers' forward, as the reference for the engine and the learner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoImageProcessor, Qwen2_5_VLForConditionalGeneration

from evidence.sampling import BANNED_LOGIT_BIAS
from evidence.types import Prompt


class Reference:
    """Transformers' forward on a Prompt's ids and positions, with transformers' image processor."""

    def __init__(self, folder: Path, banned_ids: Sequence[int]):
        self.model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self.processor = AutoImageProcessor.from_pretrained(folder)
        self.banned_ids = list(banned_ids)

    @torch.no_grad()
    def logits(self, prompt: Prompt, images: Sequence[np.ndarray], completion: np.ndarray) -> torch.Tensor:
        """float32 [C + 1, V]: the logits that predict each token of the completion, and the token after it."""
        pixels = self.processor(list(images), return_tensors="pt")
        assert np.array_equal(pixels["image_grid_thw"].numpy(), prompt.grids)
        ids = np.concatenate([prompt.token_ids, completion]).astype(np.int64)
        after = prompt.positions.max() + 1 + np.arange(len(completion))
        positions = np.concatenate([prompt.positions, np.tile(after, (3, 1))], axis=1).astype(np.int64)
        out = self.model(
            input_ids=torch.from_numpy(ids)[None],
            position_ids=torch.from_numpy(positions)[:, None],
            mm_token_type_ids=torch.from_numpy((ids == self.model.config.image_token_id).astype(np.int64))[None],
            **pixels,
        )
        return out.logits[0, len(prompt.token_ids) - 1 :]

    def logprobs(
        self, prompt: Prompt, images: Sequence[np.ndarray], completion: np.ndarray, temperature: float
    ) -> np.ndarray:
        """float32 [C]: the completion's log-probs, with the banned tokens excluded."""
        logits = self.logits(prompt, images, completion)[:-1]
        logits[:, self.banned_ids] += BANNED_LOGIT_BIAS
        picked = torch.from_numpy(completion.astype(np.int64))[:, None]
        return (logits / temperature).log_softmax(-1).gather(1, picked)[:, 0].numpy()
