"""Which frames a report embeds, how, and how many prompts have room."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_run import claim, completion, made_run, small_config
from PIL import Image

from evidence.sampling import SamplingContract
from evidence.types import FrameInfo
from orchestration.run_report import browser
from orchestration.run_report.browser import browse
from orchestration.run_report.clips import (
    MOST_FRAMES,
    MOST_SIDE,
    Encoded,
    Images,
    clip_of,
    data_uri,
    embedded,
    encoded_clips,
)
from orchestration.run_report.entries import Entry, ShownClaim, ShownCompletion
from orchestration.run_report.recorded import read_runs
from rollout.dataset.shapes import make_shapes


def entry(frames: int, *cited: int) -> Entry:
    claims = tuple(ShownClaim("cup", None, float(frame), None, frame) for frame in cited)
    completions = (ShownCompletion((), claims, {"reward": 1.0}),)
    times = tuple(map(float, range(frames)))
    return Entry(0, "training", 1, "a", "task", "?", "", (56, 56), times, completions)


def test_frames_that_claims_name_are_embedded_and_others_evenly() -> None:
    assert embedded(entry(8)) == list(range(8))
    assert embedded(entry(64, 5, 5, 6, 63)) == [0, 5, 6, 8, 16, 24, 32, 39, 47, 55, 59, 63]
    many = embedded(entry(64, *range(20, 50), *range(40, 50)))
    assert len(many) == MOST_FRAMES
    assert set(range(40, 50)) <= set(many), "those that most claims name"


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/webp;base64,")))))


def test_small_frames_keep_their_pixels_and_large_ones_are_reduced() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (56, 84, 3), np.uint8)
    np.testing.assert_array_equal(decoded(data_uri(frame)), frame)
    assert decoded(data_uri(np.zeros((540, 960, 3), np.uint8))).shape == (216, MOST_SIDE, 3)


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_shapes(tmp_path / "world", train=3, val=0, test=1, questions=1, workers=1)
    texts = [[completion(claim("red square"))]] * 3
    return made_run(small_config(tmp_path / "world", tmp_path / "run"), texts, monkeypatch, heldout=False)


def test_prompts_without_room_are_counted(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = read_runs([run_dir])
    whole = browse([run], None)
    assert (len(whole.entries), whole.left_out, whole.recorded) == (3, 0, 3)
    monkeypatch.setattr(browser, "MOST_BYTES", sum(map(len, whole.images)) // 2)
    small = browse([run], None)
    assert (len(small.entries), small.left_out) == (1, 2)
    assert sum(small.reasons.values()) == 1
    assert len(browse([run], 3).entries) == 3, "a number that is asked for is embedded whatever its size"


def test_frames_that_are_not_those_of_training_are_not_shown(run_dir: Path) -> None:
    (run,) = read_runs([run_dir])
    assert run.config is not None
    sample = run.config.data.train[0].read()[0]
    clip = clip_of(sample, run.config)
    assert not isinstance(clip, str)
    encoded = encoded_clips({clip: {0, 1, 7}}, run.config)[clip]
    assert not isinstance(encoded, str)
    assert list(encoded.uris) == [0, 1, 7]
    assert Images().of_entry(entry(3), encoded) == (
        {},
        "its video now gives other frames than in training; the file has changed",
    )
    assert "configuration" in str(clip_of(sample, None))
    assert "multiple is null" in str(clip_of(sample, replace(run.config, contract=SamplingContract())))


def test_equal_frames_are_one_image() -> None:
    info = FrameInfo("key", (0.0, 1.0, 2.0), (56, 56), (56, 56), 3.0)
    images, clip = Images(), Encoded(info, {0: "a", 1: "b", 2: "a"})
    assert images.of_entry(entry(3), clip) == images.of_entry(entry(3), clip) == ({0: 0, 1: 1, 2: 0}, None)
    assert (images.uris, images.bytes) == (["a", "b"], 2)


def test_a_dataset_is_read_once_for_all_runs(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestration.run_report import clips

    opened: list[str] = []
    real = clips.DatasetFile
    monkeypatch.setattr(clips, "DatasetFile", lambda path, *more: opened.append(path) or real(path, *more))
    (run,) = read_runs([run_dir])
    assert len(browse([run, run], None).entries) == 6
    assert len(opened) == 1
