"""The shape of a model, from its config.json alone: sizes, parameters, bytes and FLOPs. Pure.

Shapes of the recipes' models are in configs/models, so that a plan needs no weights. These files hold the sizes of the
published config.json of each model on Hugging Face, under the same keys.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evidence.errors import BadInput
from evidence.families import Family, family_of
from orchestration.shipped import CONFIGS

SHAPES = CONFIGS / "models"


@dataclass(frozen=True)
class TextShape:
    """The language model. heads, kv_heads: of queries, and of keys and values, `head_width` wide. tied: whether head
    and embedding share a weight. query_key_norm: as in evidence/families."""

    layers: int
    width: int
    mlp: int
    heads: int
    kv_heads: int
    head_width: int
    vocab: int
    tied: bool
    query_key_norm: bool

    @property
    def queries(self) -> int:
        return self.heads * self.head_width

    @property
    def keys(self) -> int:
        return self.kv_heads * self.head_width

    @property
    def layer_weights(self) -> int:
        """Elements of one layer's matrices."""
        return self.width * 2 * (self.queries + self.keys) + 3 * self.width * self.mlp

    @property
    def layer_parameters(self) -> int:
        extra = 2 * self.head_width if self.query_key_norm else self.queries + 2 * self.keys
        return self.layer_weights + extra + 2 * self.width

    @property
    def head_parameters(self) -> int:
        return self.vocab * self.width

    @property
    def parameters(self) -> int:
        """Embedding and head included; one weight if they are tied."""
        return self.layers * self.layer_parameters + self.width + self.head_parameters * (1 if self.tied else 2)

    def lora_parameters(self, rank: int, layers: tuple[str, ...]) -> int:
        """Parameters of adapters of `rank` on these linear layers."""
        sizes = {
            "q_proj": self.width + self.queries,
            "o_proj": self.width + self.queries,
            "k_proj": self.width + self.keys,
            "v_proj": self.width + self.keys,
            "gate_proj": self.width + self.mlp,
            "up_proj": self.width + self.mlp,
            "down_proj": self.width + self.mlp,
        }
        return self.layers * rank * sum(sizes[name] for name in layers)


@dataclass(frozen=True)
class VisionShape:
    """The vision tower. out: width of its features. patch_values: numbers in a patch. merged: patches of a visual
    token. positions: learnt positions. deepstack: layers whose features the language model also gets. gated: as in
    evidence/families."""

    layers: int
    width: int
    mlp: int
    out: int
    patch: int
    patch_values: int
    merged: int
    step_frames: int
    positions: int
    deepstack: int
    gated: bool

    @property
    def layer_parameters(self) -> int:
        attention = 4 * self.width**2 + 4 * self.width
        if self.gated:
            return 2 * self.width + attention + 3 * self.width * self.mlp + 2 * self.mlp + self.width
        return 4 * self.width + attention + 2 * self.width * self.mlp + self.mlp + self.width

    @property
    def parameters(self) -> int:
        merged, norm = self.width * self.merged, 1 if self.gated else 2
        merger = merged**2 + merged + merged * self.out + self.out
        embedding = self.patch_values * self.width + (0 if self.gated else self.width)
        mergers = merger + norm * self.width + self.deepstack * (merger + norm * merged)
        return embedding + self.positions * self.width + self.layers * self.layer_parameters + mergers

    @property
    def tile(self) -> int:
        """Pixels along the side of a visual token."""
        return self.patch * round(self.merged**0.5)

    def flops(self, patches: float, patches_per_image: float) -> float:
        """FLOPs of a forward over `patches`. Attention is counted within each image, as if no layer had windows."""
        return 2 * patches * (self.parameters + 2 * self.layers * self.width * patches_per_image)


@dataclass(frozen=True)
class Shape:
    """A model's shape. name: for messages."""

    name: str
    family: Family
    text: TextShape
    vision: VisionShape

    @property
    def parameters(self) -> int:
        return self.text.parameters + self.vision.parameters

    def kv_bytes(self, element: int) -> int:
        """Bytes of keys and values of one token, `element` bytes each."""
        return 2 * self.text.layers * self.text.keys * element

    def text_flops(self, tokens: float, pairs: float) -> float:
        """FLOPs of a forward of all layers over `tokens`, of which `pairs` (query, key) attend to each other. The head
        is not included."""
        return 2 * self.text.layers * (tokens * self.text.layer_weights + 2 * pairs * self.text.queries)

    def head_flops(self, tokens: float) -> float:
        """FLOPs of a forward of the head for `tokens` scored or drawn tokens."""
        return 2 * tokens * self.text.head_parameters


def shipped() -> list[str]:
    """The models whose shapes are shipped."""
    return sorted(path.stem for path in SHAPES.glob("*.json"))


def read_shape(key: str, folder: str) -> Shape:
    """The shape of the model in `folder`, by its config.json. A folder that does not exist stands for the shipped shape
    of its last part: models/Qwen2.5-VL-7B-Instruct. `key`: of the config, for messages. Raises BadInput."""
    file, stored = Path(folder) / "config.json", SHAPES / f"{Path(folder).name}.json"
    if not file.is_file() and not stored.is_file():
        raise BadInput(
            f"{key} = {folder}: no config.json there, and no shape of that name is shipped; give a model folder, or "
            f"one of {', '.join(shipped())}"
        )
    file = file if file.is_file() else stored
    try:
        return shape_of(json.loads(file.read_text(encoding="utf-8")), folder)
    except (OSError, ValueError) as error:
        raise BadInput(f"{key} = {folder}: {file} cannot be read ({error}); give a model folder") from None
    except (KeyError, TypeError) as error:
        raise BadInput(f"{key} = {folder}: {file} lacks {error}; copy the model's own config.json") from None


def shape_of(config: dict[str, Any], name: str) -> Shape:
    """The shape in the content of a config.json. Raises BadInput for another family, KeyError for a missing size."""
    family = family_of(config.get("model_type"), name)
    vision = config[family.vision_key]
    # Older files have the language model's sizes at the top.
    text = config.get("text_config", config)
    width, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
    patch, step_frames = int(vision[family.patch_key]), int(vision[family.step_frames_key])
    return Shape(
        name,
        family,
        TextShape(
            layers=int(text["num_hidden_layers"]),
            width=width,
            mlp=int(text["intermediate_size"]),
            heads=heads,
            kv_heads=int(text["num_key_value_heads"]),
            head_width=int(text.get("head_dim") or width // heads),
            vocab=int(text["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
            query_key_norm=family.query_key_norm,
        ),
        VisionShape(
            layers=int(vision["depth"]),
            width=int(vision["hidden_size"]),
            mlp=int(vision["intermediate_size"]),
            out=int(vision["out_hidden_size"]),
            patch=patch,
            patch_values=int(vision.get(family.channels_key, 3)) * step_frames * patch**2,
            merged=int(vision[family.merge_key]) ** 2,
            step_frames=step_frames,
            positions=int(vision.get("num_position_embeddings", 0)),
            deepstack=len(vision.get("deepstack_visual_indexes", ())) if family.deepstack else 0,
            gated=family.gated_vision,
        ),
    )
