"""A packed row equals its sequences run one by one, in log-probs and in every gradient."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForImageTextToText, AutoProcessor

from evidence.sampling import BANNED_LOGIT_BIAS
from learner.packing import Row, pack_row, split_by_tokens, stack_rows
from learner.patches import Patcher
from learner.policy import Policy
from rollout.prompt import NativeVideo


@pytest.fixture(scope="module")
def policy(either_model: Path, either_encoder: Any) -> Policy:
    model = AutoModelForImageTextToText.from_pretrained(either_model, dtype=torch.float32)
    return Policy(model, either_encoder.banned_ids, train_vision=True)


@pytest.fixture(scope="module")
def patcher(either_model: Path) -> Patcher:
    return Patcher.of_model(either_model)


def clip_of(seed: int, images: int, side: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (images, side, side, 3), dtype=np.uint8)


def packed_logprobs(policy: Policy, patcher: Patcher, rows: list[Row], frames: list[np.ndarray]) -> torch.Tensor:
    batch = stack_rows(rows)
    patches = patcher.patches(frames, batch.frame_counts)
    tensors = [torch.from_numpy(getattr(batch, n)) for n in ("token_ids", "positions", "branch")]
    scored = [torch.from_numpy(batch.predict_from), torch.from_numpy(batch.targets)]
    return policy(*tensors, *scored, patches, torch.from_numpy(batch.grids), 0.7)


def plain_logprobs(
    policy: Policy, patcher: Patcher, prompt: Any, completion: np.ndarray, frames: np.ndarray
) -> torch.Tensor:
    """transformers' own forward over one sequence, with its own mask, and for images its own positions."""
    ids = torch.from_numpy(np.concatenate([prompt.token_ids, completion])).long()[None]
    patches, grids = patcher.patches([frames], prompt.frame_counts), torch.from_numpy(prompt.grids).long()
    if prompt.video_times is None:
        shown = {"pixel_values": patches, "image_grid_thw": grids}
    else:
        after = prompt.positions.max() + 1 + np.arange(len(completion))
        positions = np.concatenate([prompt.positions, np.tile(after, (3, 1))], axis=1)
        shown = {"pixel_values_videos": patches, "video_grid_thw": grids}
        shown["position_ids"] = torch.from_numpy(positions).long()[:, None]
    out = policy.model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == policy.image_token).int() + 2 * (ids == policy.video_token).int(),
        **shown,
    )
    logits = out.logits[0, len(prompt.token_ids) - 1 : -1].clone()
    logits[:, policy.banned] += BANNED_LOGIT_BIAS
    return (logits / 0.7).log_softmax(-1)[torch.arange(len(completion)), torch.from_numpy(completion).long()]


@pytest.mark.parametrize("native", [False, True], ids=["images", "native video"])
def test_rows_equal_separate_sequences(policy: Policy, patcher: Patcher, either_encoder: Any, native: bool) -> None:
    rng = np.random.default_rng(0)
    encoder, side = either_encoder, 2 * patcher.patch * patcher.merge
    cases = []
    for n, questions in ((3, ["What?", "What?", "What?"]), (2, ["Where is it?", "Where is the other one?"])):
        frames = clip_of(n, n, side)
        shown = [NativeVideo((side, side), tuple(range(n)))] if native else ["t", (side, side)] * n
        prompts = [encoder.encode([*shown, question]) for question in questions]
        completions = [rng.integers(0, 250, rng.integers(1, 9)).astype(np.int32) for _ in prompts]
        cases.append((prompts, completions, frames))
    rows = [pack_row(prompts, completions) for prompts, completions, _ in cases]
    packed = packed_logprobs(policy, patcher, rows, [frames for _, _, frames in cases])
    plain = torch.cat([plain_logprobs(policy, patcher, p, c, f) for ps, cs, f in cases for p, c in zip(ps, cs)])
    torch.testing.assert_close(packed, plain, atol=2e-5, rtol=1e-5)

    weights = torch.randn(len(plain), generator=torch.Generator().manual_seed(1))
    parameters = dict(policy.named_parameters())
    ours = torch.autograd.grad((packed * weights).sum(), list(parameters.values()))
    theirs = torch.autograd.grad((plain * weights).sum(), list(parameters.values()))
    for name, a, b in zip(parameters, ours, theirs):
        assert (a - b).norm() <= 1e-5 * b.norm() + 1e-7, name


@torch.no_grad()
def test_banned_tokens_have_no_probability_and_the_others_all_of_it(
    policy: Policy, patcher: Patcher, either_encoder: Any
) -> None:
    side = patcher.patch * patcher.merge
    batch = stack_rows([pack_row([either_encoder.encode([(side, side), "What?"])], [np.array([1, 2], np.int32)])])
    vocab = policy.model.config.get_text_config().vocab_size
    tensors = [torch.from_numpy(getattr(batch, n)) for n in ("token_ids", "positions", "branch")]
    last = torch.full((vocab,), batch.token_ids.shape[1] - 1)
    patches = patcher.patches([clip_of(0, 1, side)], [1])
    every = policy(*tensors, last, torch.arange(vocab), patches, torch.from_numpy(batch.grids), 1.0).exp()
    banned = list(either_encoder.banned_ids)
    assert every[banned].max() < 1e-30
    assert every.sum() == pytest.approx(1, abs=1e-5)
    assert every[list(either_encoder.stop_ids)].min() > 1e-6


def test_an_image_after_the_shared_prefix_is_refused(encoder: Any) -> None:
    prompts = [encoder.encode([word, (56, 56)]) for word in ("red", "blue")]
    with pytest.raises(ValueError, match="after the shared prefix"):
        pack_row(prompts, [np.array([1], np.int32)] * 2)


def test_patches_are_those_of_the_models_processor(either_model: Path, patcher: Patcher) -> None:
    processor = AutoProcessor.from_pretrained(either_model).image_processor
    side = patcher.patch * patcher.merge
    frames = np.random.default_rng(0).integers(0, 255, (2, 2 * side, 3 * side, 3), dtype=np.uint8)
    theirs = processor(images=list(frames), return_tensors="pt")
    torch.testing.assert_close(patcher.patches([frames], [1, 1]), theirs["pixel_values"], atol=1e-5, rtol=1e-5)
    assert theirs["image_grid_thw"].tolist() == [[1, 4, 6]] * 2


def test_patches_of_a_native_video_are_those_of_the_models_processor(either_model: Path, patcher: Patcher) -> None:
    processor = AutoProcessor.from_pretrained(either_model).video_processor
    frames = clip_of(1, 5, 2 * patcher.patch * patcher.merge)
    theirs = processor(videos=[frames], do_sample_frames=False, return_tensors="pt")
    torch.testing.assert_close(patcher.patches([frames], [5]), theirs["pixel_values_videos"], atol=1e-5, rtol=1e-5)
    assert theirs["video_grid_thw"].tolist() == [[3, 4, 4]]


def row_of(length: int) -> Row:
    zeros = np.zeros(length, np.int32)
    none = zeros[:0]
    return Row(zeros, np.zeros((3, length), np.int32), zeros, *[zeros[:1]] * 3, none.reshape(0, 3), none)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=40), st.integers(1, 4), st.integers(100, 2000))
def test_ranks_share_rows_evenly(lengths: list[int], ranks: int, budget: int) -> None:
    rows = [row_of(length) for length in lengths]
    if len(rows) < ranks:
        with pytest.raises(ValueError, match="cannot be shared"):
            split_by_tokens(rows, ranks, budget)
        return
    parts = split_by_tokens(rows, ranks, budget)
    assert sorted(i for rank in parts for micro in rank for i in micro) == list(range(len(rows)))
    assert len({len(rank) for rank in parts}) == 1, "ZeRO-3 hangs unless all ranks do as many forwards"
    assert all(micro for rank in parts for micro in rank)
    if ranks == 1:
        for micro in parts[0]:
            assert len(micro) == 1 or max(lengths[i] for i in micro) * len(micro) <= budget


def test_long_rows_do_not_land_on_one_rank() -> None:
    parts = split_by_tokens([row_of(n) for n in (400, 300, 100, 100, 100)], 2, 10_000)
    loads = [sum((400, 300, 100, 100, 100)[i] for micro in rank for i in micro) for rank in parts]
    assert all(b - a <= 100 for a, b in pairwise(sorted(loads)))
