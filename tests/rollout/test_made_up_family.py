"""A family that the product does not know, with tiles of 20 pixels, added by one entry of `evidence.families.FAMILIES`:
prompt, patches, the learner's forward and the engine against transformers' own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from evidence.families import FAMILIES
from evidence.sampling import BANNED_LOGIT_BIAS, SamplingContract, resized_size, resolved
from evidence.types import Prompt
from learner.model.patches import Patcher
from learner.model.policy import Policy, Rows
from learner.model.tiny import TinySpec, create_tiny_model
from learner.model.vision import Pixels
from learner.packing.shared_prefix import make_unit
from learner.packing.step import lay_out
from learner.settings import LoraSpec, PackingConfig, PolicyConfig
from rollout.engine import Engine, EngineConfig
from rollout.prompt import ChatEncoder, NativeVideo

NAME = "made_up_vl"
TILE = 20
TOLERANCE = 1e-5
COMPLETIONS = [np.array([5, 9, 40, 7], np.int32), np.array([31, 6, 2], np.int32)]


class MadeUpConfig(Qwen3VLConfig):
    model_type = NAME


class MadeUpForConditionalGeneration(Qwen3VLForConditionalGeneration):
    config_class = MadeUpConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tiny model of the made-up family, which is supported for as long as these tests run."""
    AutoConfig.register(NAME, MadeUpConfig, exist_ok=True)
    AutoModelForImageTextToText.register(MadeUpConfig, MadeUpForConditionalGeneration, exist_ok=True)
    family = replace(FAMILIES["qwen3_vl"], model_type=NAME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, NAME, family)
        path = tmp_path_factory.mktemp(NAME)
        create_tiny_model(path, TinySpec(family=NAME, patch=TILE // 2), corpus=("Which circle is red at 0.5s?",) * 3)
        config = json.loads((path / "config.json").read_text())
        config["architectures"] = ["Qwen3VLForConditionalGeneration"]  # by which vLLM finds its own model
        (path / "config.json").write_text(json.dumps(config))
        yield path


@pytest.fixture(scope="module")
def encoder(folder: Path) -> ChatEncoder:
    return ChatEncoder(folder)


def shown(encoder: ChatEncoder, kind: str) -> tuple[Prompt, np.ndarray]:
    """A prompt with five frames as images or as one native video, and the frames, sized by the resolved contract."""
    contract = resolved(SamplingContract(min_pixels=400, max_pixels=3000), encoder.tile)
    width, height = size = resized_size(90, 60, contract)
    assert width % TILE == height % TILE == 0
    frames = np.random.default_rng(0).integers(0, 256, (5, height, width, 3), np.uint8)
    slots = [size] * 5 if kind == "images" else [NativeVideo(size, (0.0, 0.5, 1.0, 1.5, 2.0))]
    return encoder.encode([*slots, "Which circle is red?"]), frames


@pytest.mark.parametrize("kind", ["images", "video"])
def test_patches_are_those_of_the_models_processor(folder: Path, encoder: ChatEncoder, kind: str) -> None:
    prompt, frames = shown(encoder, kind)
    ours = Patcher.of_model(folder).patches([frames], prompt.frame_counts)
    if kind == "images":
        theirs = AutoImageProcessor.from_pretrained(folder)(list(frames), return_tensors="pt")
    else:
        processor = AutoVideoProcessor.from_pretrained(folder)
        theirs = processor(videos=[frames], do_sample_frames=False, do_resize=False, return_tensors="pt")
    name = "" if kind == "images" else "_videos"
    np.testing.assert_array_equal(theirs["image_grid_thw" if kind == "images" else "video_grid_thw"], prompt.grids)
    torch.testing.assert_close(ours, theirs[f"pixel_values{name}"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["images", "video"])
def test_the_learner_computes_transformers_own_forward(folder: Path, encoder: ChatEncoder, kind: str) -> None:
    prompt, frames = shown(encoder, kind)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    theirs = [transformers_logprobs(model, encoder, folder, prompt, frames, ids) for ids in COMPLETIONS]
    policy = Policy(model, encoder.banned_ids, PolicyConfig())
    ours = learner_logprobs(policy, folder, prompt, frames, COMPLETIONS)
    np.testing.assert_allclose(ours, np.concatenate(theirs), atol=TOLERANCE)


def test_an_adapter_finds_its_layers(folder: Path, encoder: ChatEncoder) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    policy = Policy(model, encoder.banned_ids, PolicyConfig(lora=LoraSpec(rank=2, targets=["q_proj"])))
    layers = model.config.get_text_config().num_hidden_layers
    assert len(policy.checkpoint_parameters(frozen=False)) == 2 * layers


@pytest.mark.slow
def test_the_engine_agrees_with_the_learner(folder: Path, encoder: ChatEncoder, run: Callable) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    policy = Policy(model, encoder.banned_ids, PolicyConfig())
    engine = run(Engine.start(EngineConfig(str(folder), native_video=True), encoder.banned_ids))
    try:
        for kind in ("images", "video"):
            prompt, frames = shown(encoder, kind)
            group = run(engine.generate(prompt, frames, 4, 1.0, 24, seed=1))
            ours = learner_logprobs(policy, folder, prompt, frames, [t.token_ids for t in group])
            theirs = np.concatenate([t.logprobs for t in group])
            np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, err_msg=kind)
    finally:
        run(engine.stop())


@torch.no_grad()
def learner_logprobs(
    policy: Policy, folder: Path, prompt: Prompt, frames: np.ndarray, completions: list[np.ndarray]
) -> np.ndarray:
    """float32 [tokens of all completions], in one packed row."""
    unit = make_unit([prompt] * len(completions), completions, [("clip", frames)])
    (layout,) = lay_out([unit], 1, PackingConfig())[0]
    patches = Patcher.of_model(folder).patches(layout.images, layout.batch.frame_counts)
    pixels = Pixels(patches, torch.from_numpy(layout.batch.grids))
    return policy(Rows.of(layout.batch), pixels, 1.0).logprobs.numpy()


@torch.no_grad()
def transformers_logprobs(
    model: torch.nn.Module,
    encoder: ChatEncoder,
    folder: Path,
    prompt: Prompt,
    frames: np.ndarray,
    completion: np.ndarray,
) -> np.ndarray:
    """float32 [C]: by the model's own forward on its own processor's pixels, with the prompt's ids and positions."""
    ids = np.concatenate([prompt.token_ids, completion]).astype(np.int64)
    after = prompt.positions.max() + 1 + np.arange(len(completion))
    positions = np.concatenate([prompt.positions, np.tile(after, (3, 1))], axis=1).astype(np.int64)
    if prompt.video_times is None:
        pixels = AutoImageProcessor.from_pretrained(folder)(list(frames), return_tensors="pt")
    else:
        processor = AutoVideoProcessor.from_pretrained(folder)
        pixels = processor(videos=[frames], do_sample_frames=False, do_resize=False, return_tensors="pt")
    kinds = (ids == encoder.image_token) + 2 * (ids == encoder.video_token)
    logits = model(
        input_ids=torch.from_numpy(ids)[None],
        position_ids=torch.from_numpy(positions)[:, None],
        mm_token_type_ids=torch.from_numpy(kinds.astype(np.int64))[None],
        **{key: value for key, value in pixels.items() if key.startswith(("pixel_values", "image_grid", "video_grid"))},
    ).logits[0, len(prompt.token_ids) - 1 : -1]
    logits[:, list(encoder.banned_ids)] += BANNED_LOGIT_BIAS
    return logits.log_softmax(-1).gather(1, torch.from_numpy(completion.astype(np.int64))[:, None])[:, 0].numpy()
