"""The rows of a supervised step."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from small_clips import stop

from evidence.errors import BadInput
from evidence.sampling import SamplingContract, Selection, most_bytes, selection
from learner.settings import PackingConfig
from orchestration.commands.sft import SftConfig, Stage, TooManyLeftOut, locate, require_few_left_out
from orchestration.commands.sft_rows import Rows, RowsConfig, RowSource, by_clip, image_key
from referee.verification import VerificationConfig
from rollout.dataset.mix import DataShare
from rollout.dataset.shapes import make_shapes
from rollout.frames.config import FramesConfig
from rollout.frames.decoding import decode
from rollout.template import PromptTemplate

CONTRACT = SamplingContract(frames=2, max_pixels=3136, min_pixels=3136, multiple=28)
DATA = [DataShare("a")]


def test_images_of_equal_bytes_and_different_shapes_have_different_keys() -> None:
    wide, high = np.zeros((28, 112, 3), np.uint8), np.zeros((112, 28, 3), np.uint8)
    assert image_key(wide) == image_key(wide.copy()) != image_key(high)


def test_questions_about_one_clip_are_drawn_together(tmp_path: Path) -> None:
    rows = [
        {"video": f"{clip}.mp4", "task": "t", "question": f"{clip}{q}?", "answer": "It.", "reasoning": "So."}
        for q in range(3)
        for clip in "ab"
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "b.jsonl").write_text(json.dumps(rows[0]))
    clips = by_clip([DataShare(str(tmp_path / name)) for name in ("a.jsonl", "b.jsonl")], "answer", CONTRACT, seed=0)
    drawn = {tuple(sample.question for sample in clips[n]) for n in range(20)}
    assert drawn == {("a0?", "a1?", "a2?"), ("b0?", "b1?", "b2?"), ("a0?",)}
    with pytest.raises(BadInput, match=r"a\.jsonl: sample 0 has no key_items"):
        by_clip([DataShare(str(tmp_path / "a.jsonl"))], "verify", CONTRACT, seed=0)


def test_frames_are_those_of_training_and_a_broken_clip_is_left_out_and_counted(
    ray_cluster: Any, tiny_model: Path, tmp_path: Path
) -> None:
    make_shapes(tmp_path / "data", train=4, val=0, test=0, workers=1)
    rows = json.loads((tmp_path / "data/train.json").read_text())
    for n, row in enumerate(rows):  # one labelled moment per question, of the eight that the world's questions share
        row["key_frames"] = [row["key_frames"][n % 2]]
    (tmp_path / "data/train.json").write_text(json.dumps(rows))
    data, contract = DataShare(str(tmp_path / "data/train.json")), replace(CONTRACT, key_frames=True)
    samples = data.read()
    groups = {(sample.media_path, selection(sample, contract)) for sample in samples}
    assert len(groups) > len({sample.media_path for sample in samples}) == 4
    bad = samples[0].media_path
    Path(bad).write_text("no video")
    shown = [decode(path, contract, selected)[0] for path, selected in groups if path != bad]
    config = RowsConfig(
        task="answer",
        clips=len(groups),
        claims=1,
        packing=PackingConfig(token_budget=10**5),
        contract=contract,
        template=PromptTemplate(),
        verification=VerificationConfig(crop_size=(56, 56)),
        frames=FramesConfig(workers=1),
        frames_bytes=len(groups) * most_bytes(contract, Selection((0, 1, 2, 3))),
    )
    source = RowSource.remote(str(tiny_model), config, [[data]], 1, 0)
    try:
        first, again = (
            ray.get(source.micro_batches.options(num_returns=2).remote(0, 0), timeout=120) for _ in range(2)
        )
    finally:
        ray.kill(source)
    images = [image for micro in first[0] for image in micro.images]
    assert sorted(image.tobytes() for image in images) == sorted(frames.tobytes() for frames in shown)
    for micro, repeated in zip(first[0], again[0], strict=True):
        np.testing.assert_array_equal(micro.batch.token_ids, repeated.batch.token_ids)
    report = first[1]
    assert [path for path, _ in report.unreadable] == [bad] * sum(path == bad for path, _ in groups)
    assert set(report.clips) == {path for path, _ in groups} - {bad}
    assert len(report.clips) == 3
    assert report.frames["decoded"] == len(shown)


def test_a_clip_with_a_sequence_above_the_token_budget_is_left_out_and_counted(
    ray_cluster: Any, tiny_model: Path, tmp_path: Path
) -> None:
    make_shapes(tmp_path / "data", train=4, val=0, test=0, workers=1)
    data = DataShare(str(tmp_path / "data/train.json"))
    config = RowsConfig(
        task="answer",
        clips=4,
        claims=1,
        packing=PackingConfig("none"),
        contract=CONTRACT,
        template=PromptTemplate(),
        verification=VerificationConfig(crop_size=(56, 56)),
        frames=FramesConfig(workers=1),
        frames_bytes=4 * most_bytes(CONTRACT, Selection((0, 1, 2, 3))),
    )
    rows = Rows(str(tiny_model), config, [[data]], 1, 0)

    def lengths(token_budget: int) -> tuple[list[int], list[str]]:
        """The lengths of a step's sequences, each in its own row, and the clips left out."""
        rows.config = replace(config, packing=PackingConfig("none", token_budget))
        micros, report = runner.run(rows.micro_batches(0, 0))
        assert len({*report.clips, *report.over_budget}) == len(report.clips) + len(report.over_budget) == 4
        return sorted(n for micro in micros for n in (micro.batch.segment >= 0).sum(1).tolist()), report.over_budget

    try:
        with asyncio.Runner() as runner:
            every, left_out = lengths(10**5)
            assert left_out == []
            kept, left_out = lengths(every[-1] - 1)
            assert 0 < len(left_out) < 4
            assert set(left_out) < {sample.media_path for sample in data.read()}
            assert len(kept) <= len(every) - len(left_out)
            assert kept[-1] < every[-1]
            with pytest.raises(BadInput, match=r"fits packing\.token_budget = 5"):
                lengths(5)
    finally:
        stop(rows.store._pool)


def test_stages_follow_each_other() -> None:
    stages = [Stage(DATA, 3), Stage(DATA, 2)]
    assert [locate(step, stages) for step in range(5)] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    with pytest.raises(IndexError):
        locate(5, stages)


def test_stopping_early_keeps_the_schedule() -> None:
    early = SftConfig(stages=[Stage(DATA, 1000)], stop_after=600)
    assert (early.steps, early.planned) == (600, 1000)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"stages": []}, "stages"),
        ({"task": "answr"}, "task"),
        ({"ranks": 0}, "ranks"),
        ({"clips": 1}, "ranks"),
        ({"frames_gib": 1.0}, "below object_store_gib"),
    ],
)
def test_impossible_settings_are_refused(change: dict, word: str) -> None:
    with pytest.raises(BadInput, match=word):
        SftConfig(**({"stages": [Stage(DATA, 1)]} | change))


def test_mostly_broken_data_ends_the_run_after_more_than_one_steps_clips() -> None:
    require_few_left_out(left_out=5, drawn=5, per_step=10)
    require_few_left_out(left_out=60, drawn=100, per_step=10)
    with pytest.raises(TooManyLeftOut, match="61 of the 100 clips drawn could not be read or did not fit"):
        require_few_left_out(left_out=61, drawn=100, per_step=10)
