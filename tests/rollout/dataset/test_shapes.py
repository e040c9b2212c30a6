"""The embedded world: equal seeds give equal files, splits share no clip, and labels match the clips."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from evidence.errors import BadInput
from evidence.geometry import convert, iou
from evidence.grammar import parse
from evidence.sampling import SamplingContract
from evidence.types import NORMALISED, Box, Sample
from referee.trust.labelled_claims import asked_phrase
from rollout.dataset import read_dataset
from rollout.dataset.check import check
from rollout.dataset.read import DatasetFile
from rollout.dataset.shapes import (
    COLOURS,
    FPS,
    FRAME_SIDE,
    FRAME_SPACE,
    FRAMES,
    MOMENTS,
    RATE_AT,
    RATE_EVERY,
    RATES,
    draw_shapes,
    make_shapes,
    rate_of,
    write_clip,
)
from rollout.frames.decoding import decode

SIZES = {"train": 12, "val": 6, "test": 6}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world") / "shapes"
    make_shapes(out, **SIZES, questions=3, seed=1, workers=2)
    return out


@pytest.fixture(scope="module")
def samples(world: Path) -> list[Sample]:
    return [sample for split in SIZES for sample in read_dataset(world / f"{split}.json")]


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def asked_time(sample: Sample) -> float:
    return float(sample.question.split(" at ")[1].split()[0])


def label(sample: Sample, time: float) -> Box:
    """The asked shape's box at a sampled moment, in pixels of the frame that the policy sees."""
    idx = next(key.idx for key in sample.key_frames if key.time == time)
    (box,) = sample.key_items[idx][asked_phrase(sample) or ""]
    return convert(box, NORMALISED, FRAME_SPACE)


def test_equal_seeds_give_equal_files_with_any_number_of_workers(world: Path, tmp_path: Path) -> None:
    make_shapes(tmp_path / "again", **SIZES, questions=3, seed=1, workers=1)
    assert digests(tmp_path / "again") == digests(world)
    make_shapes(tmp_path / "other", **SIZES, questions=3, seed=2, workers=1)
    videos = {digest for name, digest in digests(world).items() if name.endswith(".mp4")}
    assert videos.isdisjoint(digests(tmp_path / "other").values())


def test_no_clip_is_in_two_splits(world: Path) -> None:
    videos = [digest for name, digest in digests(world).items() if name.endswith(".mp4")]
    assert len(videos) == sum(SIZES.values())
    assert len(set(videos)) == len(videos)


def test_splits_list_their_clips_and_the_curriculum_is_a_subset_of_training(world: Path) -> None:
    for split, clips in SIZES.items():
        rows = read_dataset(world / f"{split}.json")
        assert len({row.video_path for row in rows}) == clips
        assert all(f"/{split}/" in str(row.video_path) for row in rows)
    train = {row.id: row for row in read_dataset(world / "train.json")}
    for most in (1, 2):
        few = json.loads((world / f"train_le{most}.json").read_text())
        shapes = {i: len({p for items in row.key_items.values() for p in items}) for i, row in train.items()}
        assert {row["id"] for row in few} == {i for i, n in shapes.items() if n <= most}


def test_ids_are_unique_and_boxes_are_in_the_frame(world: Path) -> None:
    for split in SIZES:
        report, _ = check(DatasetFile(world / f"{split}.json"))
        assert report.duplicates == report.missing_media == []
        assert report.boxes_outside == report.times_outside == 0


def test_the_answer_is_the_quadrant_of_the_asked_shape(samples: list[Sample]) -> None:
    answers = set()
    for sample in samples:
        x1, y1, x2, y2 = label(sample, asked_time(sample))
        vertical = "top" if (y1 + y2) / 2 < FRAME_SIDE / 2 else "bottom"
        horizontal = "left" if (x1 + x2) / 2 < FRAME_SIDE / 2 else "right"
        assert sample.answer == f"{vertical} {horizontal}"
        answers.add(sample.answer)
    assert len(answers) == 4


def test_the_reasoning_names_the_asked_shape_in_boxes_that_are_too_large(samples: list[Sample]) -> None:
    ious, outwards = [], []
    for sample in samples:
        completion = parse(sample.reasoning or "")
        assert completion.well_formed
        assert completion.answer == sample.answer
        assert 1 <= len(completion.claims) <= 3
        assert completion.claims[0].time == asked_time(sample)
        for claim in completion.claims:
            assert claim.valid
            assert claim.phrase == asked_phrase(sample)
            assert claim.box is not None
            assert claim.time is not None
            true = np.array(label(sample, claim.time))
            ious.append(iou(claim.box, tuple(true)))
            offset = (np.array(claim.box) - true) / (true[2] - true[0])
            assert np.abs(offset[:2]).max() < 0.05
            outwards += offset[2:][np.array(claim.box[2:]) < FRAME_SIDE].tolist()
    assert min(ious) > 0.3
    assert 0.5 < np.mean(ious) < 0.8
    assert 0.2 < np.mean(outwards) < 0.35
    assert 0.08 < np.std(outwards) < 0.16


def test_clips_at_the_rates_of_real_videos_show_the_same_moments_and_end_before_their_last_printed_time(
    tmp_path: Path,
) -> None:
    contract = SamplingContract(frames=8, max_pixels=3136, min_pixels=3136, multiple=28)
    for turn, (rate, frames) in enumerate(RATES):
        number = RATE_AT + turn * RATE_EVERY
        assert rate_of(number) == (rate, frames)
        rng = np.random.default_rng(turn)
        shapes = draw_shapes(rng)
        path = tmp_path / f"{number}.mp4"
        write_clip(path, shapes, rng, *rate_of(number))
        _, info = decode(str(path), contract)
        assert [f"{time:.1f}" for time in info.times] == [f"{moment}.0" for moment in range(MOMENTS)]
        assert (info.duration < 7) == (turn < 2)
        assert info.duration == pytest.approx(frames / rate, abs=0.002)
    others = {rate_of(number) for number in range(4 * RATE_EVERY) if number % RATE_EVERY != RATE_AT}
    assert others == {(FPS, FRAMES)}


def test_labelled_shapes_are_visible_and_others_absent(samples: list[Sample]) -> None:
    contract = SamplingContract(frames=8, max_pixels=3136, min_pixels=3136, multiple=28)
    for sample in samples[::4]:
        frames, info = decode(sample.media_path, contract)
        assert info.times == pytest.approx([key.time for key in sample.key_frames], abs=0.05)
        phrases = {phrase for items in sample.key_items.values() for phrase in items}
        for frame, key in zip(frames, sample.key_frames):
            for colour, rgb in COLOURS.items():
                like = np.abs(frame.astype(int) - rgb).max(axis=2) < 40
                boxes = [box for p, items in sample.key_items[key.idx].items() if p.startswith(colour) for box in items]
                if boxes:
                    x1, y1, x2, y2 = map(round, convert(boxes[0], NORMALISED, info.resized_space))
                    assert like[y1:y2, x1:x2].mean() > 0.4, (sample.id, key.idx, colour)
                elif any(p.startswith(colour) for p in phrases):
                    assert like.mean() < 0.02, (sample.id, key.idx, colour)


@pytest.mark.parametrize(
    "numbers", [{"test": -1}, {"train": 0, "val": 0, "test": 0}, {"questions": 0}, {"workers": 0}, {"seed": -1}]
)
def test_a_number_out_of_range_is_refused_before_anything_is_written(tmp_path: Path, numbers: dict[str, int]) -> None:
    with pytest.raises(BadInput, match=next(iter(numbers)) if len(numbers) == 1 and "test" not in numbers else "sizes"):
        make_shapes(tmp_path / "new", **({"train": 1, "val": 1, "test": 1} | numbers))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused_and_unchanged(world: Path) -> None:
    before = digests(world.parent)
    with pytest.raises(BadInput, match="exists already"):
        make_shapes(world, train=1, val=0, test=0)
    assert digests(world.parent) == before


def test_an_interrupted_run_leaves_no_folder_and_can_be_repeated(tmp_path: Path) -> None:
    def stop(split: str, done: int, total: int) -> None:
        if split == "val":
            raise KeyboardInterrupt

    out, sizes = tmp_path / "shapes", {"train": 2, "val": 1, "test": 1}
    with pytest.raises(KeyboardInterrupt):
        make_shapes(out, **sizes, workers=1, progress=stop)
    assert not out.exists()
    make_shapes(out, **sizes, workers=1)
    assert list(tmp_path.iterdir()) == [out]
