"""In every packing mode, log-probs, loss and all gradients equal those of each sequence run alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from evidence.errors import BadInput
from evidence.types import Prompt
from learner.model.attention import PACKED
from learner.model.patches import Patcher
from learner.model.policy import Policy, Rows
from learner.model.vision import Pixels
from learner.packing.shared_prefix import Unit, make_unit
from learner.packing.step import MicroLayout, lay_out
from learner.settings import PackingConfig, PolicyConfig
from rollout.prompt import NativeVideo

TEMPERATURE = 0.7
Sequences = list[tuple[Prompt, np.ndarray, np.ndarray]]  # prompt, completion, frames


@pytest.fixture(scope="module")
def policy(either_model: Path, either_encoder: Any) -> Policy:
    model = AutoModelForImageTextToText.from_pretrained(either_model, dtype=torch.float32)
    return Policy(model, either_encoder.banned_ids, PolicyConfig(train_vision=True))


@pytest.fixture(scope="module")
def patcher(either_model: Path) -> Patcher:
    return Patcher.of_model(either_model)


def clip_of(seed: int, images: int, side: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (images, side, side, 3), dtype=np.uint8)


def logprobs(policy: Policy, patcher: Patcher, layout: MicroLayout) -> torch.Tensor:
    """The log-probs of one forward, computed as a rank does."""
    shown = None
    if layout.images:
        patches = patcher.patches(layout.images, layout.batch.frame_counts)
        shown = Pixels(patches, torch.from_numpy(layout.batch.grids))
    return policy(Rows.of(layout.batch), shown, TEMPERATURE).logprobs


def plain_logprobs(
    policy: Policy, patcher: Patcher, prompt: Any, completion: np.ndarray, frames: np.ndarray
) -> torch.Tensor:
    """The log-probs of one sequence by transformers' forward, with its mask and, for images, its positions."""
    ids = torch.from_numpy(np.concatenate([prompt.token_ids, completion])).long()[None]
    patches, grids = (
        patcher.patches([frames][: len(prompt.grids)], prompt.frame_counts),
        torch.from_numpy(prompt.grids).long(),
    )
    shown: dict[str, torch.Tensor] = {}
    if prompt.video_times is not None:
        after = prompt.positions.max() + 1 + np.arange(len(completion))
        positions = np.concatenate([prompt.positions, np.tile(after, (3, 1))], axis=1)
        shown = {"pixel_values_videos": patches, "video_grid_thw": grids}
        shown["position_ids"] = torch.from_numpy(positions).long()[:, None]
    elif len(grids):
        shown = {"pixel_values": patches, "image_grid_thw": grids}
    policy.model.set_attn_implementation("sdpa")
    out = policy.model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == policy.image_token).int() + 2 * (ids == policy.video_token).int(),
        **shown,
    )
    policy.model.set_attn_implementation({"text_config": PACKED})
    logits = out.logits[0, len(prompt.token_ids) - 1 : -1].clone()
    logits += policy.head.bias
    return (logits / TEMPERATURE).log_softmax(-1)[torch.arange(len(completion)), torch.from_numpy(completion).long()]


def test_a_mismatch_of_features_and_places_is_refused(policy: Policy, patcher: Patcher, either_encoder: Any) -> None:
    side = patcher.patch * patcher.merge
    unit, _ = group(either_encoder, 1, ["t", (side, side)], clip_of(1, 1, side), ["What?"], 5)
    ((layout,),) = lay_out([unit], 1, PackingConfig())
    ids = layout.batch.token_ids.copy()
    ids[ids == policy.image_token] = 0
    wrong = replace(layout, batch=replace(layout.batch, token_ids=ids))
    with pytest.raises(ValueError, match="1 features of images for 0 places"):
        logprobs(policy, patcher, wrong)


def group(encoder: Any, number: int, slots: list, frames: np.ndarray, questions: list[str], longest: int) -> tuple:
    """(unit, its sequences): `questions` about the same frames, each with a completion of up to `longest` tokens."""
    rng = np.random.default_rng(number)
    prompts = [encoder.encode([*slots, question]) for question in questions]
    completions = [rng.integers(0, 250, rng.integers(1, longest + 1)).astype(np.int32) for _ in prompts]
    unit = make_unit(prompts, completions, [(f"clip {number}", frames)])
    return unit, [(prompt, completion, frames) for prompt, completion in zip(prompts, completions)]


def step_of(kind: str, encoder: Any, side: int) -> tuple[list[Unit], Sequences]:
    """Units of one kind and of different lengths, and their sequences in order."""
    other = ["Where is it?", "Where is the other one?"]
    clips = [clip_of(n, n, side) for n in range(4)]
    images = [["t", (side, side)] * n for n in range(4)]
    videos = [[NativeVideo((side, side), tuple(range(n)))] for n in range(2, 4)]
    groups = {
        "several images": [
            group(encoder, 3, images[3], clips[3], ["What?"] * 3, 25),
            group(encoder, 1, images[1], clips[1], other, 25),
            group(encoder, 3, images[3], clips[3], ["And who?"], 5),  # the same clip again
        ],
        "native video": [
            group(encoder, 2, videos[0], clips[2], ["What?"] * 3, 9),
            group(encoder, 3, videos[1], clips[3], other, 20),
        ],
        "one completion": [group(encoder, 2, images[2], clips[2], ["What?"], 9)],
        "text only": [
            group(encoder, 0, ["Hello. "], clips[0], ["What?"] * 3, 9),
            group(encoder, 1, ["Good day to you. "], clips[0], ["Who?"], 30),
        ],
        "all kinds": [
            group(encoder, 0, ["Hello. "], clips[0], ["What?"] * 2, 9),
            group(encoder, 2, videos[0], clips[2], ["What?"] * 2, 20),
            group(encoder, 1, images[1], clips[1], other, 9),
        ],
    }[kind]
    return [unit for unit, _ in groups], [sequence for _, sequences in groups for sequence in sequences]


KINDS = ("several images", "native video", "one completion", "text only", "all kinds")


def loss_and_gradients(policy: Policy, logprobs: torch.Tensor) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of a weighted sum. All weights have one sign, so that no large terms cancel."""
    policy.zero_grad()
    weights = torch.rand(len(logprobs), generator=torch.Generator().manual_seed(1))
    loss = -(logprobs * weights).sum() / weights.sum()
    loss.backward()
    # Without images the tower has no gradient in transformers' forward, and zeros from its dummy image in ours.
    named = policy.named_parameters()
    return loss.item(), {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in named}


def run_packed(policy: Policy, patcher: Patcher, units: list[Unit], packing: PackingConfig, ranks: int) -> torch.Tensor:
    """The log-probs of the step in the order of its tokens, from all forwards of all ranks."""
    layouts = [layout for forwards in lay_out(units, ranks, packing) for layout in forwards]
    packed = torch.cat([logprobs(policy, patcher, layout) for layout in layouts])
    tokens = torch.from_numpy(np.concatenate([layout.batch.token for layout in layouts]))
    return torch.empty_like(packed).index_copy(0, tokens, packed)


@pytest.fixture(scope="module", params=KINDS)
def step(request: pytest.FixtureRequest, policy: Policy, patcher: Patcher, either_encoder: Any) -> tuple:
    """(units; log-probs, loss and gradients of transformers' forward over each sequence)."""
    units, sequences = step_of(request.param, either_encoder, 2 * patcher.patch * patcher.merge)
    plain = torch.cat([plain_logprobs(policy, patcher, *sequence) for sequence in sequences])
    return units, plain.detach(), *loss_and_gradients(policy, plain)


@pytest.mark.parametrize(
    ("mode", "factor"), [("none", 10), ("sequence", 10), ("prefix", 10), ("sequence", 1), ("prefix", 1)]
)
def test_a_step_is_the_same_in_every_packing_mode(
    step: tuple, policy: Policy, patcher: Patcher, mode: str, factor: int
) -> None:
    """With a factor of 1 the budget is the longest sequence, so that groups are split over forwards."""
    units, plain, plain_loss, plain_gradients = step
    budget = factor * max(unit.longest for unit in units)
    packed = run_packed(policy, patcher, units, PackingConfig(mode, budget), ranks=2)
    torch.testing.assert_close(packed, plain, atol=2e-5, rtol=1e-5)
    loss, gradients = loss_and_gradients(policy, packed)
    assert loss == pytest.approx(plain_loss, rel=1e-5)
    for name, plain_gradient in plain_gradients.items():
        assert (gradients[name] - plain_gradient).norm() <= 1e-5 * plain_gradient.norm() + 1e-7, name


def test_images_are_encoded_once_per_forward_except_in_mode_none(encoder: Any) -> None:
    units, sequences = step_of("several images", encoder, 56)
    encoded = {
        mode: [key for layout in lay_out(units, 1, PackingConfig(mode, 10_000))[0] for key in layout.image_keys]
        for mode in ("none", "sequence", "prefix")
    }
    assert sorted(encoded["prefix"]) == sorted(encoded["sequence"]) == ["clip 1", "clip 3"]
    assert len(encoded["none"]) == len(sequences)


@torch.no_grad()
def test_banned_tokens_have_probability_0_and_all_others_sum_to_1(
    policy: Policy, patcher: Patcher, either_encoder: Any
) -> None:
    vocab, side = policy.model.config.get_text_config().vocab_size, patcher.patch * patcher.merge
    prompt, images = either_encoder.encode([(side, side), "What?"]), [("clip", clip_of(0, 1, side))]
    completions = np.arange(vocab, dtype=np.int32)[:, None]
    unit = make_unit([prompt] * vocab, list(completions), images)  # all completions of one token
    (layout,) = lay_out([unit], 1, PackingConfig())[0]
    probabilities = logprobs(policy, patcher, layout).exp()
    banned = list(either_encoder.banned_ids)
    assert probabilities[banned].max() < 1e-30
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert probabilities[list(either_encoder.stop_ids)].min() > 1e-6


def test_sliding_windows_are_refused(tiny_model: Path) -> None:
    config = AutoConfig.from_pretrained(tiny_model)
    config.text_config.use_sliding_window = True
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    with pytest.raises(BadInput, match="use_sliding_window is true"):
        Policy(model, [], PolicyConfig())


def test_an_image_after_the_shared_prefix_is_refused(encoder: Any) -> None:
    prompts = [encoder.encode([word, (56, 56)]) for word in ("red", "blue")]
    with pytest.raises(ValueError, match="after the shared prefix"):
        make_unit(prompts, [np.array([1], np.int32)] * 2, [("key", np.zeros((1, 56, 56, 3), np.uint8))])


def test_patches_match_the_models_processor(either_model: Path, patcher: Patcher) -> None:
    processor = AutoProcessor.from_pretrained(either_model).image_processor
    side = patcher.patch * patcher.merge
    frames = np.random.default_rng(0).integers(0, 255, (2, 2 * side, 3 * side, 3), dtype=np.uint8)
    theirs = processor(images=list(frames), return_tensors="pt")
    torch.testing.assert_close(patcher.patches([frames], [1, 1]), theirs["pixel_values"], atol=1e-5, rtol=1e-5)
    assert theirs["image_grid_thw"].tolist() == [[1, 4, 6]] * 2


def test_patches_of_a_native_video_match_the_models_processor(either_model: Path, patcher: Patcher) -> None:
    processor = AutoProcessor.from_pretrained(either_model).video_processor
    frames = clip_of(1, 5, 2 * patcher.patch * patcher.merge)
    theirs = processor(videos=[frames], do_sample_frames=False, return_tensors="pt")
    torch.testing.assert_close(patcher.patches([frames], [5]), theirs["pixel_values_videos"], atol=1e-5, rtol=1e-5)
    assert theirs["video_grid_thw"].tolist() == [[3, 4, 4]]
