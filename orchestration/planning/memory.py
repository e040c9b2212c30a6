"""Memory of a run by component: on each kind of GPU, and in the main memory of a node. Pure.

Guarantees: activations of the language model are what autograd keeps in transformers' layers with FlexAttention, which
tests count on meta tensors for the shapes of 3B, 7B and 32B; states are those of DeepSpeed's ZeRO-3. The components of
a GPU add up to its peak: phases that do not overlap (encoding images, forward and backward, optimizer) count only as
far as one exceeds the one before. All sizes are in bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from learner.settings import SUB_GROUP, PackingConfig, PolicyConfig
from orchestration.cluster_settings import ClusterConfig
from orchestration.planning.gpus import GPUS_PER_NODE, Gpu
from orchestration.planning.shapes import Shape, TextShape
from orchestration.planning.workload import Workload
from orchestration.settings import LearnerConfig, SamplingConfig, TrainConfig

GIB = 2**30
FLOAT32 = 4
ELEMENT = {"float32": 4, "bfloat16": 2}
# DeepSpeed 0.19's defaults for ZeRO-3, in elements: parameters gathered at once and ahead, and a bucket of gradients.
LIVE, PREFETCH, BUCKET = 10**9, 5 * 10**7, 5 * 10**8
# CUDA context, NCCL's buffers and cuBLAS workspaces of a rank, and those of an engine with its CUDA graphs.
RANK_CONTEXT, ENGINE_CONTEXT = int(1.5 * GIB), int(2 * GIB)
# Chunks of the logits that are alive at once in learner/model/head.
HEAD_CHUNKS = 4
PROCESS = 3 * GIB  # main memory of a process that has imported torch and CUDA
HELD_VERSIONS = 2  # weights in the object store: in use and being collected


@dataclass(frozen=True)
class RoleMemory:
    """One GPU of a role. components: bytes by name. limit: what the role may use of it."""

    role: str
    components: dict[str, float]
    limit: float

    @property
    def total(self) -> float:
        return sum(self.components.values())


def layer_activations(text: TextShape, element: int) -> float:
    """Bytes per token that a layer keeps for its backward, with activations of `element` bytes."""
    norm = (FLOAT32 + 2 * element) * text.width  # its input in float32, and its result before and after its weight
    # FlexAttention repeats keys and values unless the number of heads is a power of two.
    keys = text.keys if text.heads & (text.heads - 1) == 0 else text.queries
    attention = 2 * element * (text.queries + keys) + FLOAT32 * text.heads
    if text.query_key_norm:
        attention += (FLOAT32 + element) * (text.queries + text.keys)
    return 2 * norm + attention + 4 * element * text.mlp


def activations(text: TextShape, tokens: int, element: int, checkpointing: bool) -> float:
    """Peak bytes of a forward and backward of the language model over `tokens`, without weights and their gradients."""
    layer = layer_activations(text, element)
    kept = text.layers * element * text.width + layer if checkpointing else text.layers * layer
    final_norm = (FLOAT32 + element) * text.width
    backward = 2 * element * text.mlp  # gradients within one layer
    return tokens * (kept + final_norm + backward)


def head_chunks(text: TextShape, policy: PolicyConfig, tokens: int, element: int) -> float:
    """Peak bytes of the log-probs of `tokens` tokens, beside the head's weight and its gradient."""
    hidden = tokens * text.width * (FLOAT32 + 2 * element)
    whole = tokens * text.vocab * FLOAT32
    return HEAD_CHUNKS * min(policy.logit_chunk_mib * 2**20, whole) + hidden


def vision_forward(shape: Shape, tokens: int, element: int) -> float:
    """Peak bytes of encoding the images of `tokens` visual tokens without gradients."""
    vision, patches = shape.vision, tokens * shape.vision.merged
    layer = element * (2 * vision.width + 3 * vision.mlp)
    features = element * vision.out * (1 + vision.deepstack)
    return patches * (FLOAT32 * vision.patch_values + layer) + tokens * features


def vision_activations(shape: Shape, tokens: int, element: int, checkpointing: bool) -> float:
    """Bytes that a trained tower keeps for its backward over the images of `tokens` visual tokens. An estimate: its
    attention is counted as that of the language model."""
    vision = shape.vision
    norm = (FLOAT32 + 2 * element if vision.gated else 2 * element) * vision.width
    mlp = (4 if vision.gated else 2) * element * vision.mlp
    layer = 2 * norm + 4 * element * vision.width + mlp
    kept = vision.layers * element * vision.width + layer if checkpointing else vision.layers * layer
    return tokens * vision.merged * (FLOAT32 * vision.patch_values + kept)


def trained_parameters(shape: Shape, policy: PolicyConfig) -> int:
    if policy.lora is not None:
        return shape.text.lora_parameters(policy.lora.rank, policy.lora.targets or shape.family.lora_layers)
    return shape.parameters if policy.train_vision else shape.text.parameters


def sharded_parameters(shape: Shape, policy: PolicyConfig) -> int:
    """Parameters that ZeRO-3 divides over the ranks: all but a frozen tower."""
    adapters = trained_parameters(shape, policy) if policy.lora is not None else 0
    return shape.text.parameters + (shape.vision.parameters if policy.train_vision else 0) + adapters


def forward_tokens(packing: PackingConfig, workload: Workload, groups: int, ranks: int) -> int:
    """The most tokens of one forward of one rank: the budget, or less if a rank's whole part is smaller."""
    longest = workload.trained_tokens(packing, [workload.longest] * workload.completions)
    return min(packing.token_budget, math.ceil(groups / ranks) * longest)


def learner_memory(
    shape: Shape, learner: LearnerConfig, workload: Workload, groups: int, limit_gib: float
) -> RoleMemory:
    """The GPU of one rank. groups: of an optimizer step. limit_gib: what engines on the same GPU leave of it."""
    policy, zero, element = learner.policy, learner.zero, ELEMENT[learner.zero.precision]
    trained = trained_parameters(shape, policy)
    sharded = sharded_parameters(shape, policy)
    tokens = forward_tokens(learner.packing, workload, groups, learner.ranks)
    visual = tokens * workload.visual_tokens // (workload.prompt + workload.completions)
    on_gpu, part = zero.offload_optimizer == "none", trained / learner.ranks
    master = 0 if element == FLOAT32 else FLOAT32  # in float32 the weights are their own master weights
    largest = 0 if policy.lora else min(trained, shape.text.head_parameters)
    states = {
        "weights": 0.0 if zero.offload_parameters == "cpu" else element * sharded / learner.ranks,
        "vision tower": 0.0 if policy.train_vision else float(element * shape.vision.parameters),
        "optimizer states": part * (master + 2 * FLOAT32) if on_gpu else 0.0,
        "gradients": part * FLOAT32 if on_gpu else 0.0,
        "weight average": part * FLOAT32 if on_gpu and zero.ema is not None else 0.0,
        "context": float(RANK_CONTEXT),
    }
    running = {
        "gathered weights": float(element * min(sharded, LIVE + PREFETCH)),
        "gradient buckets": float(element * (min(trained, BUCKET) + 2 * largest)),
        "activations": activations(shape.text, tokens, element, policy.gradient_checkpointing),
        "vision activations": vision_activations(shape, visual, element, policy.gradient_checkpointing)
        if policy.train_vision
        else 0.0,
        "head": head_chunks(shape.text, policy, tokens, element),
    }
    most = sum(running.values())
    encoding = 0.0 if policy.train_vision else vision_forward(shape, visual, element)
    # The fused optimizer has no temporaries but a flat copy of the gradients that it uses.
    optimizer = FLOAT32 * min(part, max(SUB_GROUP, largest / learner.ranks)) if on_gpu else 0.0
    beyond = {
        "image encoding": max(0.0, encoding - most),
        "optimizer temporaries": max(0.0, optimizer - max(most, encoding)),
    }
    return RoleMemory("learner", _nonzero(states | running | beyond), limit_gib * GIB)


def reference_memory(shape: Shape, learner: LearnerConfig, workload: Workload, groups: int, gpu: Gpu) -> RoleMemory:
    """The GPU of one rank of a frozen reference, which computes log-probs alone."""
    element, ranks = ELEMENT[learner.zero.precision], learner.reference.ranks
    tokens = forward_tokens(learner.packing, workload, groups, learner.ranks)
    visual = tokens * workload.visual_tokens // (workload.prompt + workload.completions)
    components = {
        "weights": element * shape.text.parameters / ranks,
        "vision tower": float(element * shape.vision.parameters),
        "context": float(RANK_CONTEXT),
        "gathered weights": float(element * min(shape.text.parameters, LIVE + PREFETCH)),
        "activations": max(
            tokens * element * (4 * shape.text.width + 3 * shape.text.mlp), vision_forward(shape, visual, element)
        ),
        "head": head_chunks(shape.text, learner.policy, tokens, element),
    }
    return RoleMemory("reference", components, gpu.memory_gib * GIB)


def engine_memory(
    role: str, shape: Shape, sampling: SamplingConfig, cluster: ClusterConfig, element: int, gpu: Gpu
) -> RoleMemory:
    """One GPU of an engine, up to its share of the GPU. The KV cache gets what the rest leaves."""
    parallel = cluster.tensor_parallel
    logits = 3 * FLOAT32 * sampling.max_num_seqs * shape.text.vocab
    tokens = sampling.max_num_batched_tokens
    prefill = tokens * element * (4 * shape.text.width + 3 * shape.text.mlp / parallel)
    components = {
        "weights": element * shape.parameters / parallel,
        "activations": max(logits + prefill, vision_forward(shape, tokens, element)),
        "weight update": element * max(shape.text.head_parameters, shape.text.layer_parameters) / parallel,
        "context": float(ENGINE_CONTEXT),
    }
    limit = cluster.gpu_memory_utilization * gpu.memory_gib * GIB
    components["KV cache"] = max(0.0, limit - sum(components.values()))
    return RoleMemory(role, components, limit)


def least_kv_bytes(shape: Shape, sampling: SamplingConfig, cluster: ClusterConfig, element: int) -> float:
    """The KV cache, on each of its GPUs, of one sequence of the full length: an engine does not start with less."""
    return sampling.max_model_len * shape.kv_bytes(element) / cluster.tensor_parallel


def store_memory(config: TrainConfig, shape: Shape) -> dict[str, float]:
    """What a node's object store holds."""
    element = ELEMENT[config.learner.zero.precision]
    trained = trained_parameters(shape, config.learner.policy)
    return {
        "object store: frames": config.cluster.frames_gib * GIB,
        f"object store: {HELD_VERSIONS} weight versions": float(HELD_VERSIONS * element * trained),
    }


def node_memory(config: TrainConfig, shape: Shape, processes: int, gpus: int) -> dict[str, float]:
    """Main memory of the node that holds most ranks. processes, gpus: of the whole run."""
    learner, element = config.learner, ELEMENT[config.learner.zero.precision]
    ranks, nodes = min(learner.ranks, GPUS_PER_NODE), max(1, math.ceil(gpus / GPUS_PER_NODE))
    part = trained_parameters(shape, learner.policy) / learner.ranks
    sharded = sharded_parameters(shape, learner.policy) / learner.ranks
    average = FLOAT32 if learner.zero.ema is not None else 0
    states = part * (3 * FLOAT32 + average)
    changes = config.pacing.full_every > 1  # of weights are found beside the version before, and applied to a mirror
    components = store_memory(config, shape) | {
        "offloaded optimizer": ranks * (states + part * FLOAT32) if learner.zero.offload_optimizer == "cpu" else 0.0,
        "weights sent last": ranks * element * part if changes else 0.0,
        "mirror of the weights": element * part * learner.ranks if changes else 0.0,
        "offloaded weights": ranks * element * sharded if learner.zero.offload_parameters == "cpu" else 0.0,
        "checkpoint being written": ranks * states,
        "vision features": 0.0 if learner.policy.train_vision else ranks * learner.policy.vision_cache_mib * 2.0**20,
        "decoders": config.frames.workers * config.frames.worker_gib * GIB,
        "processes": float(math.ceil(processes / nodes) * PROCESS),
    }
    return _nonzero(components)


def _nonzero(components: dict[str, float]) -> dict[str, float]:
    return {name: size for name, size in components.items() if size}
