"""The vLLM engine: the only module that talks to vLLM's frontend and its weight control plane.

Guarantees (promises 4, 5, 7): every sampled token comes with its log-probability under the distribution that drew it
and the weight version that drew it; the prompt the engine runs is token for token the one given; a request never reads
KV of weights older than those it started under; an engine whose weights failed to load never answers again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evidence.families import read_family
from evidence.gpu_memory import wait_for_memory
from evidence.sampling import BANNED_LOGIT_BIAS, mean_spacing
from evidence.types import Prompt, Trajectory
from rollout.engine_setup import EngineConfig, arguments_of, prepare_environment

if TYPE_CHECKING:
    from vllm.outputs import CompletionOutput, RequestOutput
    from vllm.sampling_params import SamplingParams

# Seconds between polls of a running fetch. A poll costs the engine less than a millisecond.
POLL_S = 0.02
FETCH_TIMEOUT_S = 300.0


class PromptMismatch(RuntimeError):
    """The engine's prompt is not the one that learner and referee will use (promise 5)."""


class EngineStopped(RuntimeError):
    """The engine was stopped, or stopped itself because an update of its weights failed halfway."""


class WeightsRefused(RuntimeError):
    """A weight set could not be fetched or verified. The engine keeps its present weights."""


@dataclass(frozen=True)
class WeightStore:
    """Where an engine gets new weights: Ray's address and namespace, and the name of the weights actor."""

    address: str
    namespace: str
    actor: str


class Engine:
    """Created by `await Engine.start(...)`. All methods must be called in the event loop that started it."""

    def __init__(self, llm: Any, banned_ids: Iterable[int], version: int, top_p: float = 1.0, top_k: int = 0):
        self._llm, self.top_p, self.top_k = llm, top_p, top_k
        self.logit_bias = {int(token): BANNED_LOGIT_BIAS for token in banned_ids}
        self.version = version
        self.updating = asyncio.Lock()
        self.request_numbers = itertools.count()

    @property
    def llm(self) -> Any:
        if self._llm is None:
            raise EngineStopped("this engine was stopped; start another")
        return self._llm

    @classmethod
    async def start(
        cls, config: EngineConfig, banned_ids: Iterable[int], version: int = 0, store: WeightStore | None = None
    ) -> Engine:
        """Load the model in its folder as weights `version`. `update_weights` needs a `store`.

        Raises BadInput if the folder does not hold a model of a supported family.
        """
        prepare_environment(config.threads, config.model_runner)
        from transformers import AutoConfig
        from vllm.config import WeightTransferConfig
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        # vLLM refuses to start with less free memory, and its processes may be those of an engine that has just ended.
        await asyncio.to_thread(wait_for_memory, config.gpu_memory_utilization)
        sizes = read_family(config.model).vision_sizes(AutoConfig.from_pretrained(config.model))
        transfer = WeightTransferConfig(backend="ser") if store else None
        arguments = AsyncEngineArgs(**arguments_of(config, sizes), weight_transfer_config=transfer)
        engine = cls(AsyncLLM.from_engine_args(arguments), banned_ids, version, config.top_p, config.top_k)
        await engine.llm.update_weight_version(str(version))
        if store is not None:
            await engine.llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info=vars(store)))
        return engine

    async def generate(
        self,
        prompt: Prompt,
        frames: np.ndarray | Sequence[np.ndarray],
        n: int,
        temperature: float,
        max_tokens: int,
        seed: int,
    ) -> tuple[Trajectory, ...]:
        """`n` completions of one prompt, each with its exact behaviour policy.

        `frames`: uint8 [frames, H, W, 3], already resized. Temperature 0 is greedy (`n` must be 1). Completion i
        depends on `seed` and i only, not on other requests in the batch (exactly in float32 on one CPU thread, within
        rounding elsewhere). Raises PromptMismatch.
        """
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        first_seed = int(np.random.SeedSequence(seed).generate_state(1, np.uint32)[0])
        top_p, top_k = self.top_p, self.top_k
        if top_k and temperature == 0:  # an engine that returns kept sets refuses temperature 0
            temperature, top_k = 1.0, 1
        params = SamplingParams(
            n=n,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            max_tokens=max_tokens,
            seed=first_seed,
            logprobs=0,
            logit_bias=self.logit_bias,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        output = await self._run(prompt, frames, params)
        return tuple(self._trajectory(completion) for completion in sorted(output.outputs, key=lambda c: c.index))

    async def choose(self, prompt: Prompt, images: Sequence[np.ndarray], allowed: Sequence[int]) -> np.ndarray:
        """float32 [K]: probabilities of the next token, restricted to the K `allowed` ids; they sum to 1.

        `images`: uint8 [H, W, 3] each, already resized. Raises PromptMismatch.
        """
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        params = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            logprobs=len(allowed),
            allowed_token_ids=list(allowed),
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        output = await self._run(prompt, images, params)
        assert output.outputs[0].logprobs is not None
        first = output.outputs[0].logprobs[0]
        probabilities = np.exp(np.array([first[token].logprob for token in allowed], np.float64))
        return (probabilities / probabilities.sum()).astype(np.float32)

    @property
    def kv_tokens(self) -> int:
        """The number of tokens that fit the KV cache."""
        cache = self.llm.vllm_config.cache_config
        return int(cache.num_gpu_blocks * cache.block_size)

    @property
    def dead(self) -> bool:
        """Whether the engine can no longer answer: vLLM's engine process died, or the engine was stopped."""
        return self._llm is None or self._llm.errored

    def leave_if_dead(self) -> None:
        """End this process if its engine is dead: its owner restarts an actor that dies, but would keep sending work to
        one that lives on without an engine."""
        if self.dead:
            logging.getLogger(__name__).error("the vLLM engine died; ending this process", exc_info=True)
            os._exit(1)

    async def _run(self, prompt: Prompt, images: Iterable[np.ndarray], params: SamplingParams) -> RequestOutput:
        request = {
            "prompt_token_ids": prompt.request_ids.tolist(),
            "multi_modal_data": _multi_modal_data(prompt, images),
            "cache_salt": str(self.version),  # the prefix cache outlives a weight update
        }
        # FINAL_ONLY: there is exactly one output.
        (output,) = [out async for out in self.llm.generate(request, params, f"r{next(self.request_numbers)}")]
        _check_prompt(prompt, output.prompt_token_ids, self.llm.tokenizer.decode)
        return output

    def _trajectory(self, completion: CompletionOutput) -> Trajectory:
        assert completion.logprobs is not None
        assert completion.weight_versions is not None
        assert completion.finish_reason is not None
        steps: Iterable[tuple[int, Any]] = zip(completion.token_ids, completion.logprobs, strict=True)
        return Trajectory(
            token_ids=np.asarray(completion.token_ids, np.int32),
            logprobs=np.array([logprobs[token].logprob for token, logprobs in steps], np.float32),
            version_spans=tuple((int(span.version), span.start, span.end) for span in completion.weight_versions),
            text=self.llm.tokenizer.decode(completion.token_ids, skip_special_tokens=True),
            finish_reason=completion.finish_reason,
            kept=self._kept(completion) if self.top_k else None,
        )

    @staticmethod
    def _kept(completion: CompletionOutput) -> np.ndarray:
        """Trajectory.kept of a completion."""
        assert completion.sampling_mask is not None
        sets = completion.sampling_mask.token_ids
        assert len(sets) == len(completion.token_ids)
        kept = np.full((len(sets), max(map(len, sets), default=0)), -1, np.int32)
        for place, (drawn, ids) in enumerate(zip(completion.token_ids, sets)):
            if drawn not in ids:  # the learner would give it a probability of 0
                raise RuntimeError(f"vLLM drew token {drawn} at place {place} and does not list it among those kept")
            kept[place, : len(ids)] = ids
        return kept

    async def prefetch(self, version: int) -> None:
        """Fetch and verify weights while generation continues. Raises WeightsRefused."""
        async with self.updating:
            await self._fetch(version, FETCH_TIMEOUT_S)

    async def update_weights(self, version: int, fetch_s: float = FETCH_TIMEOUT_S) -> None:
        """Switch to weights `version` in flight: requests that are being generated continue with the new weights.

        Raises ValueError if `version` is not above the present one (cache salts and version spans would be wrong), and
        WeightsRefused if it cannot be fetched and verified within `fetch_s`; the weights are then unchanged. Any later
        failure stops the engine.
        """
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        async with self.updating:
            if version <= self.version:
                raise ValueError(f"weight version {version} is not above the engine's, {self.version}")
            await self._fetch(version, fetch_s)
            try:
                await self.llm.pause_generation(mode="keep", clear_cache=False)
                await self.llm.start_weight_update()
                await self.llm.update_weights(WeightTransferUpdateRequest(update_info={"version": version}))
                await self.llm.finish_weight_update(weight_version=str(version))
                await self.llm.reset_encoder_cache()  # image features of an older vision tower
                self.version = version
                await self.llm.resume_generation()
            except BaseException:
                await self.stop()
                raise

    async def _fetch(self, version: int, limit_s: float) -> None:
        try:
            async with asyncio.timeout(limit_s):
                await self.llm.collective_rpc("prefetch_weights", args=(version, limit_s))
                while "fetching" in (states := await self.llm.collective_rpc("weights_state", args=(version,))):
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise WeightsRefused(f"version {version}: not fetched within {limit_s:g} s") from None
        failed = [state for state in states if state != "ready"]
        if failed:
            raise WeightsRefused(failed[0])

    async def check_health(self) -> None:
        """Return once the engine's process has answered, which it does between two steps, also while generation is
        paused. Raises vLLM's EngineDeadError if it can no longer answer; one that was stopped (SIGSTOP) never does."""
        await self.llm.check_health()
        await self.llm.is_paused()

    async def stop(self) -> None:
        """End the engine's processes. Requests in flight fail. A second call does nothing."""
        llm, self._llm = self._llm, None
        if llm is None:
            return
        # vLLM logs the end of its process as an error.
        logger = logging.getLogger("vllm.v1.engine.async_llm")
        level = logger.level
        logger.setLevel(logging.CRITICAL)
        await asyncio.to_thread(llm.shutdown)
        logger.setLevel(level)


def _multi_modal_data(prompt: Prompt, images: Iterable[np.ndarray]) -> dict[str, Any]:
    """The frames of a prompt as vLLM takes them."""
    if prompt.video_times is None:
        return {"image": list(images)}
    # vLLM is given a video of one frame per second, sampled at the times as (fractional) frame indices. The times are
    # then exact, whatever the file's frame rate.
    times = prompt.video_times
    metadata = {
        "fps": 1.0,
        "frames_indices": list(times),
        "total_num_frames": len(times) * mean_spacing(times),
    }
    return {"video": [(np.asarray(images), metadata)]}


def _check_prompt(prompt: Prompt, engine_ids: Sequence[int], decode: Callable[[list[int]], str]) -> None:
    ours, theirs = prompt.token_ids, np.asarray(engine_ids)
    if np.array_equal(ours, theirs):
        return
    common = min(len(ours), len(theirs))
    differing = np.flatnonzero(ours[:common] != theirs[:common])
    at = int(differing[0]) if len(differing) else common

    def token(ids: np.ndarray) -> str:
        return f"{ids[at]} ({decode([int(ids[at])])!r})" if at < len(ids) else "none"

    raise PromptMismatch(
        f"the engine's prompt has {len(theirs)} tokens, ours {len(ours)}; they first differ at position {at}: "
        f"{token(theirs)} in the engine, {token(ours)} here"
    )
