"""A time that the prompt printed is inside the video, at distance 0 from its frame, however it was rounded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.families import FAMILIES
from evidence.sampling import SamplingContract, frame_indices
from evidence.spaces import read
from evidence.types import Claim, FrameInfo
from referee.reward.ser import OUTSIDE_VIDEO, SerConfig, claims_to_verify, guard, temporal_penalty
from rollout.prompt import printed_times
from rollout.template import PromptTemplate

RATES = (59.94, 60.0, 29.97, 30.0, 24.0, 23.976)
FRAME_TEXTS = ("{time:.0f}", "Frame {index} at {time:.1f}s: ", "{time:06.2f}", "{time!r}", "{index0}: {time:g} s")
WITHOUT_DURATION = "{question}"


def video(rate: float, frames: int, shown: int = 8) -> FrameInfo:
    """The shown frames of a video, times as the decoder rounds them."""
    times = [index / rate for index in range(frames)]
    indices = frame_indices(times, SamplingContract(frames=shown))
    return FrameInfo("k", tuple(round(times[i], 3) for i in indices), (56, 56), (56, 56), round(frames / rate, 3))


def claim(time: str, info: FrameInfo, template: PromptTemplate, encoder: Any = None) -> Claim:
    text = f"<think><obj>cup</obj><box>[1,1,20,20]</box>at<t>{time}</t>s</think><answer>a</answer>"
    (claim,) = read(text, info, "resized", printed_times(template, info, encoder)).claims
    return claim


def test_the_last_frame_of_599_at_60_frames_per_second_can_be_cited() -> None:
    info, template = video(60, 599), PromptTemplate(question=WITHOUT_DURATION)
    assert (info.times[-1], info.duration) == (9.967, 9.983)
    last = claim("10.0", info, template)
    assert last.time == 9.967
    assert guard(last, info, SerConfig()) is None
    assert temporal_penalty(last, info, SerConfig()) == 0
    for beyond in ("10.1", "10.05", "11"):
        assert guard(claim(beyond, info, template), info, SerConfig()) == OUTSIDE_VIDEO
    # Without rounding, 10.0 is not printed, and stays outside.
    exact = PromptTemplate(frame="{time:.3f}", question=WITHOUT_DURATION)
    assert guard(claim("10.0", info, exact), info, SerConfig()) == OUTSIDE_VIDEO


@given(st.sampled_from(RATES), st.integers(1, 1500), st.integers(1, 32), st.sampled_from(FRAME_TEXTS), st.booleans())
def test_every_printed_time_is_inside_at_no_distance(
    rate: float, frames: int, shown: int, frame: str, intervals: bool
) -> None:
    info, template = video(rate, frames, shown), PromptTemplate(frame=frame)
    spec = frame[frame.index("{time") : frame.index("}", frame.index("{time")) + 1]
    for time in info.times:
        said = spec.format(time=time)
        cited = claim(f"0 to {said}" if intervals else said, info, template)
        assert cited.valid
        assert claims_to_verify(cited_alone(cited), info, SerConfig(lambda_t=0.5)) == [cited]
        penalty = temporal_penalty(cited, info, SerConfig())
        width = (cited.until or 0.0) - (cited.time or 0.0) if intervals else 0.0
        assert penalty == pytest.approx(width / info.duration)


def cited_alone(claim: Claim) -> Any:
    return SimpleNamespace(claims=(claim,))


@given(st.sampled_from(RATES), st.integers(2, 1500))
def test_the_printed_duration_ends_an_interval_inside(rate: float, frames: int) -> None:
    info, template = video(rate, frames), PromptTemplate()
    cited = claim(f"0 to {info.duration:.1f}", info, template)
    assert temporal_penalty(cited, info, SerConfig()) < 1 or cited.until == info.duration


def test_an_interval_stays_in_order() -> None:
    info, template = video(60, 599), PromptTemplate(question=WITHOUT_DURATION)
    cited = claim("9.98 to 10.0", info, template)
    assert (cited.time, cited.until, cited.reason) == (9.98, 9.98, None)
    assert claim("10.0 to 9", info, template).reason == "reversed interval"


def test_of_frames_that_are_printed_alike_the_nearest_is_meant() -> None:
    info = FrameInfo("k", (0.0, 0.4, 0.8, 1.1, 1.4), (56, 56), (56, 56), 1.5)
    assert printed_times(PromptTemplate(frame="{time:.0f}", question=WITHOUT_DURATION), info) == {0: 0.0, 1: 1.1}


def test_the_steps_of_a_native_video_are_printed_times() -> None:
    encoder: Any = SimpleNamespace(family=FAMILIES["qwen3_vl"], sizes=SimpleNamespace(step_frames=2))
    template = PromptTemplate(native_video=True, question=WITHOUT_DURATION)
    info = FrameInfo("k", (0.0, 5.0, 9.967), (56, 56), (56, 56), 9.983)
    assert printed_times(template, info, encoder) == {2.5: 0.0, 10.0: 9.967}
    assert temporal_penalty(claim("10.0", info, template, encoder), info, SerConfig()) == 0
    silent: Any = SimpleNamespace(family=FAMILIES["qwen2_5_vl"], sizes=SimpleNamespace(step_frames=2))
    assert printed_times(template, info, silent) == printed_times(template, info) == {}


def test_a_form_that_no_completion_can_repeat_is_left_out() -> None:
    info = video(60, 599)
    assert printed_times(PromptTemplate(frame="{time:.1e}", question=WITHOUT_DURATION), info) == {}
