"""In bfloat16 the gate passes what rounding does to the embedded policy's log-probs, and stops on a planted fault. The
engine's log-probs are those of float32."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText

from evidence.types import FrameInfo, Group, Prompt, Sample, Trajectory
from learner.model.patches import Patcher
from learner.model.policy import Policy, Rows
from learner.model.vision import Pixels
from learner.packing.shared_prefix import make_unit
from learner.packing.step import lay_out
from learner.settings import PackingConfig, PolicyConfig
from orchestration.loop.parity import ParityError, compared
from orchestration.parity_bounds import ParityConfig
from rollout.dataset.shapes import make_shapes
from rollout.prompt import ChatEncoder

MODEL = Path(__file__).parents[3] / "assets/policy"
BOUNDS = ParityConfig().bounds("bfloat16")
Shown = tuple[Prompt, np.ndarray]


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Group, np.ndarray]]:
    """Groups with their frames; the completions are labelled ones, which this policy was taught."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    make_shapes(folder, train=6, val=0, test=1, questions=4, workers=1)
    encoder, made = ChatEncoder(MODEL), []
    rows = json.loads((folder / "train.json").read_text())
    for video in sorted({row["video_path"] for row in rows}):
        frames = _frames(folder / video)
        of_video = [row for row in rows if row["video_path"] == video]
        size = frames.shape[2], frames.shape[1]
        shown = [part for k in range(len(frames)) for part in (f"Frame {k + 1} at {k / 2:.1f}s: ", size)]
        prompt = encoder.encode([*shown, "\n" + of_video[0]["question"]])
        ids = [encoder.tokenizer.encode(row["reasoning_process"]) for row in of_video]
        drawn = tuple(Trajectory(np.array(i, np.int32), np.zeros(0), (), "", "stop") for i in ids)
        info = FrameInfo(video, tuple(k / 2 for k in range(len(frames))), size, size, len(frames) / 2)
        made.append((Group(0, Sample(video, "shapes", "t", "q", "a", video), info, prompt, drawn, 0), frames))
    in_float32 = _logprobs(torch.float32, made)
    return [(_with_logprobs(group, ours), frames) for (group, frames), ours in zip(made, in_float32)]


def _frames(video: Path) -> np.ndarray:
    """Every fourth frame, uint8 [N, H, W, 3]."""
    capture, frames = cv2.VideoCapture(str(video)), []
    while (read := capture.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    return np.stack(frames[::4])


def _with_logprobs(group: Group, logprobs: np.ndarray) -> Group:
    ends = np.cumsum([len(t.token_ids) for t in group.trajectories])[:-1]
    parts = zip(group.trajectories, np.split(logprobs, ends))
    return replace(group, trajectories=tuple(replace(t, logprobs=part) for t, part in parts))


@torch.no_grad()
def _logprobs(dtype: torch.dtype, groups: list[tuple[Group, np.ndarray]]) -> list[np.ndarray]:
    """float32 [N] of each group."""
    model = AutoModelForImageTextToText.from_pretrained(MODEL, dtype=dtype)
    policy, patcher = Policy(model, ChatEncoder(MODEL).banned_ids, PolicyConfig()), Patcher.of_model(MODEL)
    found = []
    for group, frames in groups:
        ids = [t.token_ids for t in group.trajectories]
        unit = make_unit([group.prompt] * len(ids), ids, [("clip", frames)])
        (layout,) = lay_out([unit], 1, PackingConfig())[0]
        patches = patcher.patches(layout.images, layout.batch.frame_counts)
        found.append(policy(Rows.of(layout.batch), Pixels(patches, torch.from_numpy(layout.batch.grids)), 1.0).logprobs)
    return [logprobs.float().numpy() for logprobs in found]


def test_rounding_is_let_through(groups: list[tuple[Group, np.ndarray]]) -> None:
    parity = compared([g for g, _ in groups], _logprobs(torch.bfloat16, groups), BOUNDS, str)
    assert parity.tokens > 1000
    assert 1e-4 < parity.mean < BOUNDS.mean / 3
    assert parity.largest < BOUNDS.p999 / 2


def _positions_from_the_middle(group: Group, frames: np.ndarray) -> tuple[Group, np.ndarray]:
    positions = group.prompt.positions.copy()
    positions[:, positions.shape[1] // 2 :] += 1
    return replace(group, prompt=replace(group.prompt, positions=positions)), frames


def _frames_reversed(group: Group, frames: np.ndarray) -> tuple[Group, np.ndarray]:
    return group, frames[::-1].copy()


@pytest.mark.parametrize("fault", [_positions_from_the_middle, _frames_reversed])
def test_a_prompt_that_is_seen_otherwise_is_not(
    groups: list[tuple[Group, np.ndarray]], fault: Callable[[Group, np.ndarray], tuple[Group, np.ndarray]]
) -> None:
    wrong = _logprobs(torch.bfloat16, [fault(group, frames) for group, frames in groups])
    with pytest.raises(ParityError, match=r"learner\.parity allows a mean of 0\.05"):
        compared([g for g, _ in groups], wrong, BOUNDS, str)


def test_one_completion_that_is_off_by_a_token_is_not(groups: list[tuple[Group, np.ndarray]]) -> None:
    ours = _logprobs(torch.bfloat16, groups)
    length = len(groups[2][0].trajectories[0].token_ids)
    ours[2][:length] = np.roll(ours[2][:length], 1)
    with pytest.raises(ParityError, match=f"of completion 0 to sample {groups[2][0].sample.id}:"):
        compared([g for g, _ in groups], ours, BOUNDS, str)
