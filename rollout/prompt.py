"""Prompts: text and frames become token ids and positions here, once, for engine, learner, referee and evaluation.

Guarantees (promise 5): `Prompt.token_ids` are the ids vLLM computes from `Prompt.request_ids` and the same frames, and
`Prompt.positions` are vLLM's mRoPE positions. Text given as data cannot become a control token: `<|…|>` is taken out
of it before the chat template is applied.

A video is shown as images, each after its time in text, or as native video tokens, of which two frames share a step:
Qwen2.5-VL writes their time into the positions, Qwen3-VL as text before each step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import AutoConfig, AutoTokenizer

from evidence.errors import BadInput
from evidence.sampling import mean_spacing
from evidence.types import FrameInfo, Prompt, Sample
from rollout.mrope import mrope_positions
from rollout.template import PromptTemplate

CONTROL_TOKEN = re.compile(r"<\|[^|<>\s]*\|>")
FRAMES_PER_STEP = 2  # temporal_patch_size of both families
ImageSize = tuple[int, int]


@dataclass(frozen=True)
class NativeVideo:
    """A slot for a whole video: its frames' (width, height) in pixels, and their times in seconds, two or more."""

    size: ImageSize
    times: tuple[float, ...]

    @property
    def step_times(self) -> list[float]:
        """The time of each step, in the middle between its two frames; an odd one at the end is shown twice."""
        times = self.times + self.times[-1:]
        return [(a + b) / 2 for a, b in zip(times[::2], times[1::2])]

    @property
    def step_seconds(self) -> float:
        """Seconds from one step to the next, rounded as they are on their way through transformers and vLLM."""
        frames = len(self.times)
        per_second = frames / (frames * mean_spacing(self.times))
        return float(np.float32(FRAMES_PER_STEP / per_second))


Part = str | ImageSize | NativeVideo


def without_control(text: str) -> str:
    """`text` without control tokens, also those that appear only once an inner one is taken out."""
    while (shorter := CONTROL_TOKEN.sub("", text)) != text:
        text = shorter
    return text


class ChatEncoder:
    """Turns one user turn of text and image slots into a Prompt, with the chat template of the model in `folder`."""

    def __init__(self, folder: str | Path):
        if not (Path(folder) / "config.json").is_file():
            raise BadInput(f"{folder}: no model here (config.json is missing); give a folder in Hugging Face format")
        try:
            config = AutoConfig.from_pretrained(folder)
            self.tokenizer = AutoTokenizer.from_pretrained(folder)
            self.image_token, self.video_token = int(config.image_token_id), int(config.video_token_id)
            self.vision_start, self.vision_end = int(config.vision_start_token_id), int(config.vision_end_token_id)
            self.patch = int(config.vision_config.patch_size)
            self.merge = int(config.vision_config.spatial_merge_size)
            # Positions per second of Qwen2.5-VL's native videos; None for Qwen3-VL, which writes times as text.
            self.tokens_per_second = getattr(config.vision_config, "tokens_per_second", None)
        except (OSError, ValueError, AttributeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise BadInput(
                f"{folder}: not the folder of a vision language model of the Qwen-VL kind ({reason})"
            ) from None
        self.stop_ids = _stop_ids(Path(folder), self.tokenizer.eos_token_id)
        self.banned_ids = banned_token_ids(self.tokenizer, self.stop_ids, int(config.get_text_config().vocab_size))

    def encode(self, parts: Sequence[Part]) -> Prompt:
        """`parts`: texts, and slots for images or for one video; sides are multiples of patch x merge.

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
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        request = np.asarray(self.tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)
        shown = [self._expand(slot) for slot in slots]
        before, *after = np.split(request, np.flatnonzero(self.is_visual(request)))
        pieces = [before, *(np.concatenate([ids, rest[1:]]) for (ids, _), rest in zip(shown, after, strict=True))]
        token_ids = np.concatenate(pieces).astype(np.int32)
        spans = [span for _, spans in shown for span in spans]
        time_step = video.step_seconds * self.tokens_per_second if video and self.tokens_per_second else 1.0
        return Prompt(
            token_ids=token_ids,
            request_ids=request,
            positions=mrope_positions(self.is_visual(token_ids), spans, time_step),
            grids=np.array([self._grid(slot) for slot in slots], np.int32).reshape(-1, 3),
            video_times=video.times if video else None,
        )

    @property
    def tile(self) -> int:
        """Pixels along the side of what one visual token shows: sides of frames are multiples of it."""
        return self.patch * self.merge

    def is_visual(self, token_ids: np.ndarray) -> np.ndarray:
        """bool [P]: the tokens of images and videos."""
        return (token_ids == self.image_token) | (token_ids == self.video_token)

    def _grid(self, slot: ImageSize | NativeVideo) -> tuple[int, int, int]:
        (width, height), steps = (slot.size, len(slot.step_times)) if isinstance(slot, NativeVideo) else (slot, 1)
        return steps, height // self.patch, width // self.patch

    def _expand(self, slot: ImageSize | NativeVideo) -> tuple[list[int], list[tuple[int, int, int]]]:
        """(ids in the place of the slot's placeholder, the spans of tokens along (t, h, w) among them)."""
        t, h, w = self._grid(slot)
        h, w = h // self.merge, w // self.merge
        if not isinstance(slot, NativeVideo):
            return [self.image_token] * h * w, [(1, h, w)]
        if self.tokens_per_second is not None:
            return [self.video_token] * t * h * w, [(t, h, w)]
        ids: list[int] = []
        for time in slot.step_times:
            # Tokenized on its own, as vLLM does it: with its neighbours it might become other tokens.
            ids += self.tokenizer(f"<{time:.1f} seconds>", add_special_tokens=False)["input_ids"]
            ids += [self.vision_start, *[self.video_token] * h * w, self.vision_end]
        return ids, [(1, h, w)] * t

    def encode_completion(self, text: str) -> np.ndarray:
        """int32 [C]: a completion's ids with its stop token, as supervised training wants them."""
        ids = self.tokenizer(without_control(text), add_special_tokens=False)["input_ids"]
        return np.asarray([*ids, self.tokenizer.eos_token_id], np.int32)


def build_prompt(encoder: ChatEncoder, template: PromptTemplate, sample: Sample, info: FrameInfo) -> Prompt:
    """The policy's prompt: the frames, as the template says (those of a single moment as images), then the question."""
    parts: list[Part] = []
    if template.native_video and info.times[-1] > info.times[0]:
        parts.append(NativeVideo(info.size, info.times))
    else:
        for index, time in enumerate(info.times, 1):
            parts += [template.frame.format(index=index, index0=index - 1, time=time), info.size]
    parts.append(template.ask(sample, info.duration))
    return encoder.encode(parts)


def _stop_ids(folder: Path, eos: int) -> tuple[int, ...]:
    """Every id that ends a completion: the tokenizer's and those of generation_config.json."""
    stop = {eos}
    file = folder / "generation_config.json"
    if file.is_file():
        listed = json.loads(file.read_text()).get("eos_token_id", [])
        stop.update(listed if isinstance(listed, list) else [listed])
    return tuple(sorted(stop))


def banned_token_ids(tokenizer: AutoTokenizer, stop_ids: tuple[int, ...], vocab: int) -> tuple[int, ...]:
    """Ids that can be neither sampled nor scored: control tokens and ids without a token, the stop tokens excepted."""
    control = {i for token, i in tokenizer.get_vocab().items() if CONTROL_TOKEN.fullmatch(token)}
    return tuple(sorted((control | set(range(len(tokenizer), vocab))) - set(stop_ids)))
