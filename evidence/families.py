"""Model families: everything that differs between Qwen2.5-VL and Qwen3-VL, as plain data (docs/models.md).

Guarantee: no other module tests for a family or holds a number or a name that follows from one. Fields with a default
hold what the supported families share.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evidence.errors import BadInput

# Files that transformers and vLLM load from a model's folder where they are present.
JSON_FILES = (
    "generation_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "model.safetensors.index.json",
)
# A control token as all families write it. Text given as data never contains one (rollout/prompt).
CONTROL_TOKEN = re.compile(r"<\|[^|<>\s]*\|>")


@dataclass(frozen=True)
class VisionSizes:
    """How pixels become visual tokens.

    patch: pixels along a patch's side. merge: patches along a token's side. step_frames: frames of a native video that
    share one step of tokens. channels: of a pixel. positions_per_second: by which the time axis of a native video
    advances; None: by one position a step.
    """

    patch: int
    merge: int
    step_frames: int
    channels: int
    positions_per_second: float | None

    @property
    def tile(self) -> int:
        """Pixels along the side of one visual token: sides of frames are multiples of it."""
        return self.patch * self.merge

    @property
    def patch_values(self) -> int:
        """Numbers in one patch."""
        return self.channels * self.step_frames * self.patch**2


@dataclass(frozen=True)
class ControlTokens:
    """Control tokens by their text."""

    end_of_text: str = "<|endoftext|>"
    turn_start: str = "<|im_start|>"
    turn_end: str = "<|im_end|>"
    vision_start: str = "<|vision_start|>"
    vision_end: str = "<|vision_end|>"
    vision_pad: str = "<|vision_pad|>"
    image_pad: str = "<|image_pad|>"
    video_pad: str = "<|video_pad|>"


@dataclass(frozen=True)
class Family:
    """One model family. Names ending in `_key` are attributes of the model's config (config.json).

    model_type: in config.json; transformers finds the classes of config and model by it. processor_class,
        image_processor, video_processor: transformers' classes, as the processor's files name them.
    pixel_mean, pixel_std: of pixels of 0-1, by channel, in the family's published processors.
    box_space: in which the published models write boxes, a key of evidence.spaces.SPACES.
    seconds_key: the vision config's positions per second of native video; None: times do not enter positions.
    step_text: text before each step of a native video, with its {time} in seconds; None: no text.
    deepstack: whether the vision tower also gives features for the language model's first layers.
    sliding_window_key: the text config's switch for sliding-window attention; None: there is no such switch.
    interleaved_rope: whether the rotary frequencies of time, height and width take turns (else: one block each).
    windowed_vision: whether the tower has window attention (else: learnt positions).
    query_key_norm: whether the language model normalises queries and keys (else: they have biases, as values do).
    gated_vision: whether the tower's MLPs are gated and its norms without bias.
    vision_tower, language_model, head: modules of the model, which are prefixes of checkpoint names too.
    lora_layers: linear layers of the language model that an adapter may change.
    layer: a pattern whose group is the prefix of a layer's tensors, in the language model and in the tower.
    engine_tower, engine_layer: the vision tower's prefix, and a pattern for a decoder layer's, among vLLM's names.
    """

    model_type: str
    processor_class: str
    image_processor: str
    video_processor: str
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    box_space: str
    seconds_key: str | None
    step_text: str | None
    deepstack: bool
    sliding_window_key: str | None
    interleaved_rope: bool
    windowed_vision: bool
    query_key_norm: bool
    gated_vision: bool
    vision_key: str = "vision_config"
    patch_key: str = "patch_size"
    merge_key: str = "spatial_merge_size"
    step_frames_key: str = "temporal_patch_size"
    channels_key: str = "in_channels"
    image_token_key: str = "image_token_id"
    video_token_key: str = "video_token_id"
    vision_start_key: str = "vision_start_token_id"
    vision_end_key: str = "vision_end_token_id"
    tokens: ControlTokens = ControlTokens()
    vision_tower: str = "model.visual"
    language_model: str = "model.language_model"
    head: str = "lm_head"
    lora_layers: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    layer: str = r"(.*?\.(?:layers|blocks)\.\d+)\."
    engine_tower: str = "visual"
    engine_layer: str = r"language_model\.model\.layers\.\d+"

    def vision_sizes(self, config: Any) -> VisionSizes:
        """The sizes in a model's `config`, as transformers reads it. Raises AttributeError if one is missing."""
        vision = getattr(config, self.vision_key)
        return VisionSizes(
            patch=int(getattr(vision, self.patch_key)),
            merge=int(getattr(vision, self.merge_key)),
            step_frames=int(getattr(vision, self.step_frames_key)),
            channels=int(getattr(vision, self.channels_key)),
            positions_per_second=None if self.seconds_key is None else float(getattr(vision, self.seconds_key)),
        )

    def in_vision_tower(self, name: str) -> bool:
        """Whether a tensor of that checkpoint name is part of the vision tower."""
        return name.startswith(f"{self.vision_tower}.")


FAMILIES = {
    family.model_type: family
    for family in (
        Family(
            model_type="qwen2_5_vl",
            processor_class="Qwen2_5_VLProcessor",
            image_processor="Qwen2VLImageProcessor",
            video_processor="Qwen2VLVideoProcessor",
            pixel_mean=(0.48145466, 0.4578275, 0.40821073),
            pixel_std=(0.26862954, 0.26130258, 0.27577711),
            box_space="resized",
            seconds_key="tokens_per_second",
            step_text=None,
            deepstack=False,
            sliding_window_key="use_sliding_window",
            interleaved_rope=False,
            windowed_vision=True,
            query_key_norm=False,
            gated_vision=True,
        ),
        Family(
            model_type="qwen3_vl",
            processor_class="Qwen3VLProcessor",
            image_processor="Qwen2VLImageProcessor",
            video_processor="Qwen3VLVideoProcessor",
            pixel_mean=(0.5, 0.5, 0.5),
            pixel_std=(0.5, 0.5, 0.5),
            box_space="thousand",
            seconds_key=None,
            step_text="<{time:.1f} seconds>",
            deepstack=True,
            sliding_window_key=None,
            interleaved_rope=True,
            windowed_vision=False,
            query_key_norm=True,
            gated_vision=False,
        ),
    )
}


def family_of(model_type: object, where: str | Path) -> Family:
    """The family of that `model_type`. Raises BadInput, which begins with `where`, if it is not supported."""
    if model_type not in FAMILIES:
        raise BadInput(
            f"{where}: model_type = {model_type}: must be {' or '.join(FAMILIES)}; give a model of a supported family "
            "(docs/models.md)"
        )
    return FAMILIES[str(model_type)]


def read_family(folder: str | Path) -> Family:
    """The family of the model in `folder`, by its config.json. Raises BadInput if none is there or supported, or if one
    of JSON_FILES is damaged."""
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise BadInput(f"{folder}: no model here (config.json is missing); give a folder in Hugging Face format")
    family = family_of(_read_object(file).get("model_type"), folder)
    for name in JSON_FILES:
        if (Path(folder) / name).is_file():
            _read_object(Path(folder) / name)
    return family


def generation_end_ids(folder: str | Path) -> tuple[int, ...]:
    """The ids that end a completion by the model's generation_config.json; none if the file or the value is absent.
    Raises BadInput if they are not ids."""
    file = Path(folder) / "generation_config.json"
    if not file.is_file():
        return ()
    value = _read_object(file).get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(token) is int and token >= 0 for token in ids):
        raise BadInput(f"{file}: eos_token_id = {value!r:.60}: must be a token id, a list of token ids, or null")
    return tuple(ids)


def _read_object(file: Path) -> dict[str, Any]:
    """A file of a model folder. Raises BadInput unless it holds a JSON object."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{file}: not valid JSON ({error}); copy the model's own file again") from None
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror}); make it readable") from None
    if not isinstance(content, dict):
        raise BadInput(
            f"{file}: must hold a JSON object, not {type(content).__name__}; copy the model's own file again"
        )
    return content
