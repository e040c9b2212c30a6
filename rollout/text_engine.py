"""A vLLM engine for text alone, such as a judge of answers: any model that vLLM can serve, in a process of its own.

Guarantees: greedy; a prompt that does not fit the context has no reply; the engine and its memory are gone when
`replies` returns.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from evidence.errors import BadInput, RunFailed

MAX_LENGTH = 8192  # tokens of a prompt and its reply: a question and an answer are far shorter
KV_CACHE_GIB = 1.0  # without a GPU


def replies(folder: str, prompts: Sequence[str], max_tokens: int) -> list[str | None]:
    """The reply to each prompt, sent as one user turn through the model's chat template. On GPUs the model is split
    over all that are visible. Raises BadInput for a folder that holds no model, and RunFailed."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        try:
            return process.submit(_replies, folder, list(prompts), max_tokens).result()
        except BrokenProcessPool:
            raise RunFailed(f"the engine of {folder} died; it may need more memory than there is") from None


def _replies(folder: str, prompts: list[str], max_tokens: int) -> list[str | None]:
    from rollout.engine_setup import prepare_environment

    prepare_environment(threads=1)
    from transformers import AutoConfig, AutoTokenizer

    try:
        config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # transformers and tokenizers raise many kinds for damaged files
        raise BadInput(f"{folder}: not a model folder ({str(error).strip().splitlines()[0]})") from None
    if not tokenizer.chat_template:
        raise BadInput(f"{folder}: its tokenizer has no chat template; a judge must follow instructions")
    length = min(MAX_LENGTH, int(config.get_text_config().max_position_embeddings))
    turns = ([{"role": "user", "content": prompt}] for prompt in prompts)
    texts = [tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) for turn in turns]
    requests = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    fitting = [n for n, ids in enumerate(requests) if len(ids) + max_tokens <= length]
    answered = dict(zip(fitting, _generated(folder, [requests[n] for n in fitting], length, max_tokens)))
    return [answered.get(n) for n in range(len(prompts))]


def _generated(folder: str, requests: list[list[int]], length: int, max_tokens: int) -> list[str]:
    """The greedy completions of prompts given as token ids."""
    import torch
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt
    from vllm.platforms import current_platform

    own: dict[str, Any]
    if current_platform.is_cpu():
        own = {"enforce_eager": True, "kv_cache_memory_bytes": int(KV_CACHE_GIB * 2**30)}
    else:
        own = {"tensor_parallel_size": max(1, torch.cuda.device_count())}
    llm = LLM(model=folder, max_model_len=length, disable_log_stats=True, use_tqdm_on_load=False, **own)
    sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    outputs = llm.generate([TokensPrompt(prompt_token_ids=ids) for ids in requests], sampling, use_tqdm=False)
    return [output.outputs[0].text for output in outputs]
