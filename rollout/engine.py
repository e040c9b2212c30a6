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

from evidence.sampling import BANNED_LOGIT_BIAS, mean_spacing
from evidence.types import Prompt, Trajectory

if TYPE_CHECKING:
    from vllm.outputs import CompletionOutput, RequestOutput
    from vllm.sampling_params import SamplingParams

# How often a fetch is asked whether it is done. Asking costs the engine less than a millisecond.
POLL_S = 0.02
FETCH_TIMEOUT_S = 300.0
# Prompt tokens that a CPU engine takes in one step.
PREFILL_TOKENS = 4096


class PromptMismatch(RuntimeError):
    """The engine's prompt is not the one that learner and referee will use (promise 5)."""


class EngineStopped(RuntimeError):
    """The engine was stopped, or stopped itself since its weights are not whole."""


class WeightsRefused(RuntimeError):
    """A weight set that could not be fetched or verified: the engine keeps the weights it has."""


@dataclass
class EngineConfig:
    """One vLLM engine.

    model: folder in Hugging Face format.
    dtype: of weights, activations and KV.
    max_model_len: tokens of prompt and completion together.
    max_num_seqs: completions decoded at once.
    max_images: images in one prompt.
    native_video: whether prompts may show one native video.
    seed: vLLM's own; each request brings its own seed too.
    threads: CPU threads; meaningless on a GPU.
    kv_cache_gib: KV cache of a CPU engine, GiB; on a GPU it follows from gpu_memory_utilization.
    gpu_memory_utilization: share of each GPU's memory.
    tensor_parallel_size: GPUs of one engine.
    """

    model: str
    dtype: str = "float32"
    max_model_len: int = 2048
    max_num_seqs: int = 64
    max_images: int = 16
    native_video: bool = False
    seed: int = 0
    threads: int = 1
    kv_cache_gib: float = 0.25
    gpu_memory_utilization: float = 0.85
    tensor_parallel_size: int = 1


@dataclass(frozen=True)
class WeightStore:
    """Where an engine finds new weights: Ray's address and namespace, and the weights actor's name."""

    address: str
    namespace: str
    actor: str


def _prepare_environment(threads: int) -> None:
    """What vLLM and the processes it starts can be told only by environment, before any vllm module is imported."""
    os.environ.update(
        HF_HUB_OFFLINE="1",
        TOKENIZERS_PARALLELISM="false",
        VLLM_LOGGING_LEVEL="ERROR",
        VLLM_NO_USAGE_STATS="1",
        # Engines share cores here; vLLM's own binding would put all of them on the same ones.
        VLLM_CPU_OMP_THREADS_BIND="nobind",
        OMP_NUM_THREADS=str(threads),
        # With 0 a CPU engine may run its worker inside the engine process: one process and 400 MB less.
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
    )


def _platform_arguments(config: EngineConfig) -> dict[str, Any]:
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return {
            "gpu_memory_utilization": config.gpu_memory_utilization,
            "tensor_parallel_size": config.tensor_parallel_size,
        }
    # Measured on the tiny model: compilation makes the start 48 s instead of 19 and no token faster. Without the
    # variable the sampler alone is still compiled, which delays the first request by 11 s.
    os.environ["TORCH_COMPILE_DISABLE"] = "1"
    return {
        "kv_cache_memory_bytes": int(config.kv_cache_gib * 2**30),
        "enforce_eager": True,
        "distributed_executor_backend": "uni",
        # vLLM 0.32 rewinds a seeded request's generator after each part of a prefill but the last, which a CPU
        # generator cannot do ("CPU Generator does not use offset"): so every prompt is prefilled in one go.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(config.max_model_len, PREFILL_TOKENS),
    }


class Engine:
    """Made by `await Engine.start(...)`; all methods are to be called in the event loop that started it."""

    def __init__(self, llm: Any, banned_ids: Iterable[int], version: int):
        self._llm = llm
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
        """Load the model in its folder as weights `version`; with a `store`, `update_weights` becomes possible."""
        _prepare_environment(config.threads)
        from vllm.config import WeightTransferConfig
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = AsyncEngineArgs(
            model=config.model,
            dtype=config.dtype,
            seed=config.seed,
            max_model_len=config.max_model_len,
            max_num_seqs=config.max_num_seqs,
            limit_mm_per_prompt={"image": config.max_images, "video": int(config.native_video)},
            # Frames come resized; none can have more tokens than a prompt, so nothing is ever resized again. A video's
            # pixels are counted over all its frames, and two of them become one frame's tokens.
            mm_processor_kwargs={
                "images_kwargs": {"size": {"shortest_edge": 28**2, "longest_edge": config.max_model_len * 32**2}},
                "videos_kwargs": {
                    "size": {"shortest_edge": 28**2, "longest_edge": config.max_model_len * 2 * 32**2},
                    "do_sample_frames": False,
                },
            },
            # It would keep up to 4 GiB of pixels, which are seldom seen twice.
            mm_processor_cache_gb=0,
            logprobs_mode="processed_logprobs",
            enable_prefix_caching=True,
            disable_log_stats=True,
            use_tqdm_on_load=False,
            weight_transfer_config=WeightTransferConfig(backend="ser") if store else None,
            worker_extension_cls="rollout.weight_transfer.PrefetchExtension",
            **_platform_arguments(config),
        )
        engine = cls(AsyncLLM.from_engine_args(arguments), banned_ids, version)
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
        depends on `seed` and i, not on what else is in the batch (float32, one CPU thread; elsewhere within rounding).
        Raises PromptMismatch.
        """
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        first_seed = int(np.random.SeedSequence(seed).generate_state(1, np.uint32)[0])
        params = SamplingParams(
            n=n,
            temperature=temperature,
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
        """float32 [K]: probabilities of the next token over the K `allowed` ids, which alone may be decoded; sum 1.

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
        logprobs = output.outputs[0].logprobs[0]
        probabilities = np.exp(np.array([logprobs[token].logprob for token in allowed], np.float64))
        return (probabilities / probabilities.sum()).astype(np.float32)

    @property
    def dead(self) -> bool:
        """Whether it can no longer answer: vLLM's engine process died, or the engine was stopped."""
        return self._llm is None or self._llm.errored

    def leave_if_dead(self) -> None:
        """End this process if its engine is dead: an actor without its engine would be handed work for ever, while one
        that dies is started anew by its owner."""
        if self.dead:
            logging.getLogger(__name__).error("the vLLM engine died; leaving", exc_info=True)
            os._exit(1)

    async def _run(self, prompt: Prompt, images: Iterable[np.ndarray], params: SamplingParams) -> RequestOutput:
        request = {
            "prompt_token_ids": prompt.request_ids.tolist(),
            "multi_modal_data": _shown(prompt, images),
            "cache_salt": str(self.version),  # the prefix cache outlives a weight update
        }
        # FINAL_ONLY: the one output is the last.
        (output,) = [out async for out in self.llm.generate(request, params, f"r{next(self.request_numbers)}")]
        _check_prompt(prompt, output.prompt_token_ids, self.llm.tokenizer.decode)
        return output

    def _trajectory(self, completion: CompletionOutput) -> Trajectory:
        steps = zip(completion.token_ids, completion.logprobs, strict=True)
        return Trajectory(
            token_ids=np.asarray(completion.token_ids, np.int32),
            logprobs=np.array([logprobs[token].logprob for token, logprobs in steps], np.float32),
            version_spans=tuple((int(span.version), span.start, span.end) for span in completion.weight_versions),
            text=self.llm.tokenizer.decode(completion.token_ids, skip_special_tokens=True),
            finish_reason=completion.finish_reason,
        )

    async def prefetch(self, version: int) -> None:
        """Fetch and verify weights while generation goes on. Raises WeightsRefused."""
        async with self.updating:
            await self._fetch(version)

    async def update_weights(self, version: int) -> None:
        """Go over to weights `version` in flight: what is being generated goes on with them.

        Raises ValueError if `version` is not above the present one (salts and spans would lie), WeightsRefused if it
        cannot be had whole; then nothing has changed. Any later failure stops the engine.
        """
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        async with self.updating:
            if version <= self.version:
                raise ValueError(f"weight version {version} is not above the engine's, {self.version}")
            await self._fetch(version)
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

    async def _fetch(self, version: int) -> None:
        async with asyncio.timeout(FETCH_TIMEOUT_S):
            await self.llm.collective_rpc("prefetch_weights", args=(version, FETCH_TIMEOUT_S))
            while "fetching" in (states := await self.llm.collective_rpc("weights_state", args=(version,))):
                await asyncio.sleep(POLL_S)
        failed = [state for state in states if state != "ready"]
        if failed:
            raise WeightsRefused(failed[0])

    async def check_health(self) -> None:
        """Raises vLLM's EngineDeadError if the engine can no longer answer."""
        await self.llm.check_health()

    async def stop(self) -> None:
        """End the engine's processes; requests in flight fail. Stopping twice does nothing."""
        llm, self._llm = self._llm, None
        if llm is None:
            return
        # vLLM reports the end of its own process as an error.
        logger = logging.getLogger("vllm.v1.engine.async_llm")
        level = logger.level
        logger.setLevel(logging.CRITICAL)
        await asyncio.to_thread(llm.shutdown)
        logger.setLevel(level)


def _shown(prompt: Prompt, images: Iterable[np.ndarray]) -> dict[str, Any]:
    if prompt.video_times is None:
        return {"image": list(images)}
    # To vLLM it is a video of one frame a second of which the frames at these (fractional) indices were taken: so the
    # times are exact, whatever the rate of the file.
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
