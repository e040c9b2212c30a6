"""Checks before a run starts: a step's frames must fit the store at once, and every reward term must apply to some
sample."""

from __future__ import annotations

import json
import logging
import re
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from frame_folders import write_frames
from hypothesis import given
from hypothesis import strategies as st

from evidence.errors import BadInput
from evidence.sampling import SamplingContract, most_bytes, selection
from evidence.types import KeyFrame, Sample
from orchestration import preflight
from orchestration.preflight import (
    heldout_samples,
    readable_samples,
    require_frames_fit,
    require_referee,
    require_scorable,
    require_tasks,
)
from orchestration.settings import EvalConfig
from referee.reward.settings import RewardConfig, TermConfig
from referee.service.sources import RefereeSource
from referee.verification import VerificationConfig
from rollout.dataset.mix import DataFile
from rollout.frames.config import FramesConfig

ACCURACY = RewardConfig(terms={"acc": TermConfig(use="accuracy")})
KEY = "cluster.frames_gib"
PLAIN = SamplingContract(frames=8, max_pixels=3136)
RESOLVED = SamplingContract(multiple=28)
WITH_KEYS = SamplingContract(frames=8, max_pixels=3136, key_frames=True)


def labelled(key_frames: int) -> Sample:
    keys = tuple(KeyFrame(str(n), float(n)) for n in range(key_frames))
    return Sample(f"{key_frames} keys", "s", "t", "q", "a", video_path="a.mp4", key_frames=keys)


def test_a_folder_of_frames_is_readable_at_the_rate_of_its_row(tmp_path: Path) -> None:
    write_frames(tmp_path / "clip", 5)
    row = {"video": "clip", "task": "t", "question": "?", "answer": "a"}
    for more in ({"fps": 2}, {}):
        (tmp_path / "data.jsonl").write_text(json.dumps(row | more))
        read = partial(readable_samples, DataFile(str(tmp_path / "data.jsonl")), RESOLVED, FramesConfig())
        if more:
            assert read()[1][1].duration == 2.5
        else:
            with pytest.raises(BadInput, match=r"none of its media files can be read, .* must be given as 'fps'"):
                read()


def test_key_frames_count_if_they_are_shown() -> None:
    samples, gib = [labelled(0), labelled(9), labelled(2)], 4 * most_bytes(PLAIN) / 2**30
    require_frames_fit(PLAIN, samples, 4, KEY, gib)
    require_frames_fit(WITH_KEYS, [labelled(0)], 4, KEY, gib)
    with pytest.raises(BadInput, match=r"frames_gib = .* 4 clips, up to 17 each; raise it, or lower contract.frames"):
        require_frames_fit(WITH_KEYS, samples, 4, KEY, gib)


def test_the_suggested_size_passes() -> None:
    samples = [labelled(9)]
    with pytest.raises(BadInput) as refusal:
        require_frames_fit(WITH_KEYS, samples, 4, KEY, 1e-4)
    require_frames_fit(WITH_KEYS, samples, 4, KEY, float(re.search("at least ([0-9.]+)", str(refusal.value))[1]))


@given(st.lists(st.integers(0, 30), min_size=1), st.integers(1, 8), st.floats(1e-4, 0.1))
def test_a_size_that_passes_is_enough_for_every_group(keys: list[int], groups: int, gib: float) -> None:
    samples = [labelled(n) for n in keys]
    with suppress(BadInput):
        require_frames_fit(WITH_KEYS, samples, groups, KEY, gib)
        share = int(gib * 2**30) // groups  # as in rollout/frames/store
        assert all(most_bytes(WITH_KEYS, selection(sample, WITH_KEYS)) <= share for sample in samples)


@pytest.mark.parametrize(
    ("held", "set_to", "used"), [(20, None, 20), (512, None, 512), (600, None, 512), (600, 520, 520), (20, 0, 0)]
)
def test_all_held_out_clips_up_to_512_are_used_unless_a_number_is_set(
    monkeypatch: pytest.MonkeyPatch, held: int, set_to: int | None, used: int
) -> None:
    samples = [labelled(n) for n in range(held)]
    monkeypatch.setattr(preflight, "readable_samples", lambda *_: (samples, None))
    config: Any = SimpleNamespace(
        eval=EvalConfig(set_to),
        data=SimpleNamespace(heldout=SimpleNamespace(path="a.json")),
        contract=None,
        frames=None,
    )
    assert heldout_samples(config) == samples[:used]
    config.eval = EvalConfig(held + 1)
    with pytest.raises(BadInput, match=rf"eval.samples = {held + 1}: a.json has {held} samples; set a lower value, or"):
        heldout_samples(config)


def test_a_term_without_any_of_its_tasks_is_refused_and_one_with_some_is_warned_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    samples = [Sample(task, "s", task, "q", "a", video_path="a.mp4") for task in ("temporal QA", "visual QA")]

    def require(*tasks: str) -> None:
        require_tasks(RewardConfig(terms={"style": TermConfig(tasks=list(tasks)), "acc": TermConfig()}), samples)

    with caplog.at_level(logging.WARNING):
        require("visual QA")
        assert not caplog.messages
        require("visual QA", "OCR")
    assert "reward.terms.style.tasks: no sample of data.train has the task 'OCR'" in caplog.messages[0]
    with pytest.raises(BadInput, match=r"tasks: .*'Temporal qa'; the nearest is 'temporal QA', of .*visual"):
        require("Temporal qa", "OCR")


def test_a_referee_of_either_family_is_taken_as_it_is(either_model: Path, either_encoder: Any) -> None:
    require_referee(RefereeSource(str(either_model)), VerificationConfig())
    with pytest.raises(BadInput, match=rf"crop_size = \[30, 30\].* multiples of {either_encoder.tile}$"):
        require_referee(RefereeSource(str(either_model)), VerificationConfig(crop_size=(30, 30)))


def test_references_that_nothing_satisfies_are_warned_about_and_refused_above_the_limit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    good, bad = (Sample(f"n{a}", "s", "numerical", "q", a, video_path="a.mp4") for a in ("5 m", "some"))
    with caplog.at_level(logging.WARNING):
        require_scorable(ACCURACY, "data.train", [good] * 20, 0.0)
        assert not caplog.messages
        require_scorable(ACCURACY, "data.train", [good] * 19 + [bad], 0.05)
    assert "data.train: 1 of 20 samples (5.00%) have a reference that no answer can satisfy" in caplog.messages[0]
    assert "sample nsome: the answer 'some' is not a plain number" in caplog.messages[0]
    with pytest.raises(
        BadInput, match=r"^data\.heldout: 2 of 20 .*`ser data check` .*raise data\.max_unscorable \(0\.05\)"
    ):
        require_scorable(ACCURACY, "data.heldout", [good] * 18 + [bad] * 2, 0.05)


def test_references_that_no_term_reads_are_not_checked() -> None:
    bad = Sample("n", "s", "numerical", "q", "some", video_path="a.mp4")
    require_scorable(RewardConfig(terms={"ser": TermConfig(), "format": TermConfig(use="claim_format")}), "k", [bad], 0)
    require_scorable(RewardConfig(terms={"acc": TermConfig(use="accuracy", tasks=["OCR"])}), "k", [bad], 0)
    with pytest.raises(BadInput, match="1 of 1 samples"):
        require_scorable(RewardConfig(terms={"accuracy": TermConfig(tasks=["numerical"])}), "k", [bad], 0)
