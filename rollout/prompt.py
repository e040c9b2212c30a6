"""Prompts: turns text and frames into token ids and positions, once, for engine, learner, referee and evaluation.

Guarantees (promise 5): `Prompt.token_ids` are the ids vLLM computes from `Prompt.request_ids` and the same frames, and
`Prompt.positions` are vLLM's mRoPE positions. Text given as data cannot become a control token: `<|…|>` is removed
from it before the chat template is applied.

A video is shown as images, each after its time in text, or as native video tokens, where several frames share a step.
Times of native video enter the positions or are text before each step, depending on the family (evidence/families).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from evidence.errors import BadInput
from evidence.families import CONTROL_TOKEN, VisionSizes, generation_end_ids, read_family
from evidence.geometry import nearest_frame
from evidence.sampling import mean_spacing
from evidence.types import FrameInfo, Prompt, Sample
from rollout.mrope import mrope_positions
from rollout.template import PromptTemplate, printed

ImageSize = tuple[int, int]


@dataclass(frozen=True)
class NativeVideo:
    """A slot for a whole video: (width, height) of its frames in pixels, and their times in seconds, two or more."""

    size: ImageSize
    times: tuple[float, ...]

    def step_times(self, step_frames: int) -> list[float]:
        """The time of each step of `step_frames` frames: midway between its first and its last frame. The last step is
        padded with the last frame."""
        times = self.times + self.times[-1:] * (-len(self.times) % step_frames)
        return [(a + b) / 2 for a, b in zip(times[::step_frames], times[step_frames - 1 :: step_frames])]

    def positions_per_step(self, sizes: VisionSizes) -> float:
        """Positions along the time axis from one step to the next. The seconds between steps are rounded to float32, as
        in transformers and vLLM."""
        if sizes.positions_per_second is None:
            return 1.0
        frames = len(self.times)
        per_second = frames / (frames * mean_spacing(self.times))
        return float(np.float32(sizes.step_frames / per_second)) * sizes.positions_per_second


Part = str | ImageSize | NativeVideo


def without_control(text: str) -> str:
    """`text` without control tokens, including those that appear only after an inner one is removed."""
    while (shorter := CONTROL_TOKEN.sub("", text)) != text:
        text = shorter
    return text


class ChatEncoder:
    """Turns one user turn of text and image slots into a Prompt, with the chat template of the model in `folder`.

    Raises BadInput if `folder` does not hold a whole model of a supported family.
    """

    def __init__(self, folder: str | Path):
        self.family = family = read_family(folder)
        generation_ids = generation_end_ids(folder)
        try:
            config = AutoConfig.from_pretrained(folder)
            self.tokenizer = AutoTokenizer.from_pretrained(folder)
            self.image_token, self.video_token, self.vision_start, self.vision_end = (
                int(getattr(config, key))
                for key in (
                    *(family.image_token_key, family.video_token_key),
                    *(family.vision_start_key, family.vision_end_key),
                )
            )
            self.sizes = family.vision_sizes(config)
        except Exception as error:  # transformers and tokenizers raise many kinds for damaged files
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise BadInput(f"{folder}: not a whole model folder of type {family.model_type} ({reason})") from None
        self.patch, self.merge = self.sizes.patch, self.sizes.merge
        if self.tokenizer.eos_token_id is None:
            raise BadInput(
                f"{folder}: its tokenizer has no end-of-sequence token; set eos_token in tokenizer_config.json to the "
                f"token that ends a turn ({family.tokens.turn_end} in the published models)"
            )
        self._require_template(folder)
        self.stop_ids = tuple(sorted({self.tokenizer.eos_token_id, *generation_ids}))
        self.banned_ids = banned_token_ids(self.tokenizer, self.stop_ids, int(config.get_text_config().vocab_size))

    def encode(self, parts: Sequence[Part]) -> Prompt:
        """Encode `parts`: texts, and slots for images or for one video, whose sides are multiples of the tile.

        Raises ValueError if a video is not the only slot.
        """
        slots = [part for part in parts if not isinstance(part, str)]
        video = next((slot for slot in slots if isinstance(slot, NativeVideo)), None)
        if video and len(slots) > 1:
            raise ValueError("a prompt shows images or one video")
        kind = "video" if video else "image"
        content = [
            {"type": "text", "text": without_control(part)} if isinstance(part, str) else {"type": kind}
            for part in parts
        ]
        request = self._request([{"role": "user", "content": content}])
        shown = [self._expand(slot) for slot in slots]
        before, *after = np.split(request, np.flatnonzero(self.is_visual(request)))
        pieces = [before, *(np.concatenate([ids, rest[1:]]) for (ids, _), rest in zip(shown, after, strict=True))]
        token_ids = np.concatenate(pieces).astype(np.int32)
        spans = [span for _, spans in shown for span in spans]
        time_step = video.positions_per_step(self.sizes) if video else 1.0
        return Prompt(
            token_ids=token_ids,
            request_ids=request,
            positions=mrope_positions(self.is_visual(token_ids), spans, time_step),
            grids=np.array([self._grid(slot) for slot in slots], np.int32).reshape(-1, 3),
            video_times=video.times if video else None,
        )

    def _request(self, turns: list[dict[str, Any]]) -> np.ndarray:
        """int32 [R]: the ids of a chat, each image or video as one token."""
        text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return np.asarray(self.tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)

    def _require_template(self, folder: str | Path) -> None:
        """Require a chat template that shows an image."""
        copy = "copy chat_template.jinja or tokenizer_config.json of the published model"
        if not self.tokenizer.chat_template:
            raise BadInput(f"{folder}: its tokenizer has no chat template; {copy}")
        content = [{"type": "text", "text": "?"}, {"type": "image"}]
        try:
            shown = int(self.is_visual(self._request([{"role": "user", "content": content}])).sum())
        except Exception as error:  # a template is a program: it can raise anything
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise BadInput(f"{folder}: its chat template cannot be applied ({reason}); {copy}") from None
        if shown != 1:
            raise BadInput(f"{folder}: its chat template shows an image as {shown} image tokens, not as one; {copy}")

    @property
    def tile(self) -> int:
        """Pixels along the side of one visual token. Sides of frames are multiples of it."""
        return self.sizes.tile

    def is_visual(self, token_ids: np.ndarray) -> np.ndarray:
        """bool [P]: whether each token belongs to an image or a video."""
        return (token_ids == self.image_token) | (token_ids == self.video_token)

    def _grid(self, slot: ImageSize | NativeVideo) -> tuple[int, int, int]:
        if isinstance(slot, NativeVideo):
            steps, (width, height) = len(slot.step_times(self.sizes.step_frames)), slot.size
        else:
            steps, (width, height) = 1, slot
        return steps, height // self.patch, width // self.patch

    def _expand(self, slot: ImageSize | NativeVideo) -> tuple[list[int], list[tuple[int, int, int]]]:
        """(ids that replace the slot's placeholder, the (t, h, w) of each span of visual tokens among them)."""
        t, h, w = self._grid(slot)
        h, w = h // self.merge, w // self.merge
        if not isinstance(slot, NativeVideo):
            return [self.image_token] * h * w, [(1, h, w)]
        if self.family.step_text is None:
            return [self.video_token] * t * h * w, [(t, h, w)]
        ids: list[int] = []
        for time in slot.step_times(self.sizes.step_frames):
            # Tokenized on its own, as in vLLM: together with its neighbours it might become other tokens.
            ids += self.tokenizer(self.family.step_text.format(time=time), add_special_tokens=False)["input_ids"]
            ids += [self.vision_start, *[self.video_token] * h * w, self.vision_end]
        return ids, [(1, h, w)] * t

    def encode_completion(self, text: str) -> np.ndarray:
        """int32 [C]: the ids of a completion with its stop token, for supervised training."""
        ids = self.tokenizer(without_control(text), add_special_tokens=False)["input_ids"]
        return np.asarray([*ids, self.tokenizer.eos_token_id], np.int32)


def build_prompt(
    encoder: ChatEncoder,
    template: PromptTemplate,
    sample: Sample,
    info: FrameInfo,
    notes: Mapping[int, str] | None = None,
) -> Prompt:
    """The policy's prompt: the frames, shown as the template asks (a single frame always as an image), then the
    question.

    notes: texts before the frame of that index, or after the last frame, such as subtitles. Raises ValueError for notes
    about native video, which has no place for them.
    """
    notes = notes or {}
    parts: list[Part] = []
    if _is_native(template, info):
        if notes:
            raise ValueError("notes between frames cannot be shown with template.native_video")
        parts.append(NativeVideo(info.size, info.times))
    else:
        for index, time in enumerate(info.times, 1):
            parts += [notes.get(index - 1, "") + template.frame.format(index=index, index0=index - 1, time=time)]
            parts += [info.size]
    parts.append(notes.get(len(info.times), "") + template.ask(sample, info.duration))
    return encoder.encode(parts)


def printed_times(template: PromptTemplate, info: FrameInfo, encoder: ChatEncoder | None = None) -> dict[float, float]:
    """Each time that `build_prompt` prints for `info` -> the time of its frame, both in seconds; for the duration, the
    duration itself, unless a frame is printed alike. If frames are printed alike, the nearest to the printed time.

    The policy's `encoder` is needed for the times of a native video, which are those that its family prints before
    each step; without it, they are left out.
    """
    times = dict.fromkeys(template.printed_durations(info.duration), info.duration)
    if not _is_native(template, info):
        frames = [
            (value, time)
            for index, time in enumerate(info.times, 1)
            for value in printed(template.frame, time=time, index=index, index0=index - 1)
        ]
    elif encoder is not None and encoder.family.step_text is not None:
        steps = NativeVideo(info.size, info.times).step_times(encoder.sizes.step_frames)
        frames = [
            (value, info.times[nearest_frame(info.times, step)])
            for step in steps
            for value in printed(encoder.family.step_text, time=step)
        ]
    else:
        frames = []
    # Sorted by distance, farthest first: of two frames that are printed alike, the last one stays.
    return times | dict(sorted(frames, key=lambda pair: -abs(pair[0] - pair[1])))


def _is_native(template: PromptTemplate, info: FrameInfo) -> bool:
    return template.native_video and info.times[-1] > info.times[0]


def banned_token_ids(tokenizer: PreTrainedTokenizerBase, stop_ids: tuple[int, ...], vocab: int) -> tuple[int, ...]:
    """Ids that can be neither sampled nor scored: control tokens and ids without a token, except the stop tokens."""
    control = {i for token, i in tokenizer.get_vocab().items() if CONTROL_TOKEN.fullmatch(token)}
    return tuple(sorted((control | set(range(len(tokenizer), vocab))) - set(stop_ids)))
