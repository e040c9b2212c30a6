"""Seconds of each stage on GPUs, from FLOPs, bytes and the rates of planning/gpus. Pure."""

from __future__ import annotations

from dataclasses import replace

from orchestration.planning.gpus import EFFICIENCY, Gpu
from orchestration.planning.memory import ELEMENT, FLOAT32, sharded_parameters, trained_parameters
from orchestration.planning.shapes import Shape
from orchestration.planning.simulation import Seconds
from orchestration.planning.workload import CLAIM_QUESTIONS, CLAIM_TOKENS, Workload
from orchestration.settings import LearnerConfig, TrainConfig

JUDGE_TOKENS = 256  # a question about an answer


def stage_seconds(
    config: TrainConfig,
    learner: LearnerConfig,
    policy: Shape,
    referees: list[Shape],
    needs: frozenset[str],
    workload: Workload,
    gpu: Gpu,
) -> Seconds:
    """The stages of a config, with `learner` in place of its own: another number of ranks.

    referees: the models that are asked, each on engines of its own, of which the slowest counts. Endpoints are not
    among them: what they take is not known here. needs: what the reward is made from (RewardGraph.needs).
    """
    element = ELEMENT[learner.zero.precision]
    parallel = config.cluster.tensor_parallel
    share = min(1.0, config.cluster.gpus_per_engine or 1.0)  # engines that share a GPU share its rates
    crop = config.verification.crop_size
    of_rank = replace(gpu, flops=gpu.flops * config.rank_share, memory_bytes_s=gpu.memory_bytes_s * config.rank_share)
    prefill_flops = EFFICIENCY.prefill_flops * gpu.flops * parallel * share
    bandwidth = EFFICIENCY.memory * gpu.memory_bytes_s * parallel * share
    decode_flops = EFFICIENCY.decode_flops * gpu.flops * parallel * share
    context = workload.prompt + workload.mean_length / 2
    text = policy.text
    drawn = policy.text_flops(1, context) + policy.head_flops(1)
    trained = trained_parameters(policy, learner.policy)
    copied = element * trained
    return Seconds(
        frames=EFFICIENCY.decode_video_s,
        prefill=(policy.text_flops(workload.prompt, workload.prompt**2 / 2) + _vision_flops(policy, workload))
        / prefill_flops,
        decode=EFFICIENCY.decode_launch_s + element * text.parameters / bandwidth,
        decode_sequence=context * policy.kv_bytes(element) / bandwidth + drawn / decode_flops,
        referee=max((_referee_s(shape, needs, workload, crop, prefill_flops) for shape in referees), default=0.0),
        step=_step_s(learner, policy, of_rank),
        token=_trained_s(learner, policy, workload, of_rank),
        # Each rank copies out and packs its own buckets, one version at a time.
        publish=copied / learner.ranks / min(EFFICIENCY.host * gpu.host_bytes_s, EFFICIENCY.publish_bytes_s)
        + (element * sharded_parameters(policy, learner.policy)) / (EFFICIENCY.link * gpu.link_bytes_s),
        load=EFFICIENCY.load_pause_s + copied / parallel / (EFFICIENCY.host * gpu.host_bytes_s),
    )


def _vision_flops(shape: Shape, workload: Workload) -> float:
    patches = workload.visual_tokens * shape.vision.merged
    return shape.vision.flops(patches, workload.image_tokens * shape.vision.merged)


def _referee_s(referee: Shape, needs: frozenset[str], workload: Workload, crop: tuple[int, int], flops: float) -> float:
    """Seconds of a referee for a group: two questions about each claim, which share their images, and one about each
    answer, as far as the reward `needs` them."""
    seconds = 0.0
    if "verdicts" in needs:
        image = workload.image_tokens + crop[0] * crop[1] // referee.vision.tile**2
        tokens = image + CLAIM_QUESTIONS * CLAIM_TOKENS
        seen = referee.vision.flops(image * referee.vision.merged, workload.image_tokens * referee.vision.merged)
        of_claim = referee.text_flops(tokens, tokens**2 / 2) + seen
        seconds += EFFICIENCY.referee_group_s + workload.completions * workload.claims * of_claim / flops
    if "judgements" in needs:
        seconds += workload.completions * referee.text_flops(JUDGE_TOKENS, JUDGE_TOKENS**2 / 2) / flops
    return seconds


def _trained_s(learner: LearnerConfig, shape: Shape, workload: Workload, gpu: Gpu) -> float:
    """Seconds of a trained token, all ranks together."""
    mean = workload.mean_length
    tokens = workload.trained_tokens(learner.packing, [round(mean)] * workload.completions)
    # A backward takes twice a forward; without gradients of frozen weights once. Checkpointing repeats the forward.
    passes = (2 if learner.policy.lora else 3) + learner.policy.gradient_checkpointing
    drawn = workload.completions * mean
    flops = passes * shape.text_flops(tokens, workload.trained_pairs(learner.packing, mean))
    flops += (3 if learner.policy.lora else 4) * shape.head_flops(drawn)  # the head runs again in its backward
    flops += (3 if learner.policy.train_vision else 1) * _vision_flops(shape, workload)
    # A forward over a full budget gathers all weights twice and reduces all gradients once; three times with
    # checkpointing. Gathers overlap with the computation, so that the slower of the two counts.
    element = ELEMENT[learner.zero.precision]
    moved = element * (2 + learner.policy.gradient_checkpointing) * sharded_parameters(shape, learner.policy)
    moved += element * trained_parameters(shape, learner.policy)
    link = EFFICIENCY.link * gpu.link_bytes_s
    if learner.zero.offload_parameters == "cpu":
        link = min(link, EFFICIENCY.host * gpu.host_bytes_s * learner.ranks)
    compute = flops / tokens / (EFFICIENCY.learner_flops * gpu.flops)
    exchange = moved / learner.packing.token_budget / link if learner.ranks > 1 else 0.0
    return max(compute, exchange) / learner.ranks


def _step_s(learner: LearnerConfig, shape: Shape, gpu: Gpu) -> float:
    """Seconds of the optimizer: it reads and writes master weights and moments, and reads gradients."""
    part = trained_parameters(shape, learner.policy) / learner.ranks
    moved = 7 * FLOAT32 * part
    rate = EFFICIENCY.memory * gpu.memory_bytes_s
    if learner.zero.offload_optimizer == "cpu":
        rate = EFFICIENCY.host_memory_bytes_s / learner.ranks
    return EFFICIENCY.learner_step_s + moved / rate


def group_seconds(seconds: Seconds, workload: Workload, sequences: int) -> float:
    """Seconds of an engine that a group takes, with `sequences` decoded at once."""
    steps = workload.completions * workload.mean_length / sequences
    return seconds.prefill + steps * (seconds.decode + seconds.decode_sequence * sequences)
