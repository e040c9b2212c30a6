"""Creates a random vision language model small enough for two CPU cores: weights, tokenizer, processor, chat template.

Guarantees: the folder loads with transformers and vLLM; the tokenizer can encode every byte; each tag of the evidence
grammar is one token, and so is each number up to 199 unless the corpus has more frequent text, so that a claim is
about 17 tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from evidence.config_checks import require_one_of
from evidence.families import FAMILIES, ControlTokens, Family

TAG_TOKENS = tuple(f"<{slash}{tag}>" for tag in ("think", "answer", "obj", "box", "t") for slash in ("", "/"))

# transformers' .02 suits widths of a thousand; in narrow layers it makes the first outputs too small.
INITIALIZER_RANGE = 0.04
STEP_FRAMES = 2  # frames of a native video that share a step
POSITIONS_PER_SECOND = 2  # of native videos, in a family whose times enter positions


@dataclass
class TinySpec:
    """A random model. The defaults give 1.6M parameters with a vocabulary of 800.

    family: a key of evidence.families.FAMILIES. text_layers, text_width, text_mlp, text_heads: of the language model.
    text_kv_heads: null is half its heads. vision_layers, vision_width, vision_mlp, vision_heads: of the vision tower.
    patch: a patch's side, pixels. merge: a token's side, patches. vocab: tokens. max_positions: the longest sequence,
    tokens.
    """

    family: str = "qwen2_5_vl"
    text_layers: int = 4
    text_width: int = 128
    text_mlp: int = 384
    text_heads: int = 4
    text_kv_heads: int | None = None
    vision_layers: int = 3
    vision_width: int = 96
    vision_mlp: int = 256
    vision_heads: int = 4
    patch: int = 14
    merge: int = 2
    vocab: int = 800
    max_positions: int = 8192

    def __post_init__(self) -> None:
        require_one_of(self, FAMILIES, "family")


def chat_template(tokens: ControlTokens) -> str:
    """The Jinja template for transformers' `apply_chat_template`."""
    image = f"{tokens.vision_start}{tokens.image_pad}{tokens.vision_end}"
    video = f"{tokens.vision_start}{tokens.video_pad}{tokens.vision_end}"
    return (
        "{% for message in messages %}" + tokens.turn_start + "{{ message['role'] }}\n"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}" + image + "{% elif part['type'] == 'video' %}" + video + "{% else %}"
        "{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
        + tokens.turn_end
        + "\n{% endfor %}{% if add_generation_prompt %}"
        + tokens.turn_start
        + "assistant\n{% endif %}"
    )


def train_tokenizer(corpus: Iterable[str], vocab: int, control: ControlTokens) -> PreTrainedTokenizerFast:
    """A byte-complete BPE tokenizer of `vocab` tokens. Numbers, decimals and words are separate pre-tokens."""
    tokenizer = Tokenizer(models.BPE())
    words = Regex(r"\d+\.\d+|\d+| ?[A-Za-z]+| ?[^\sA-Za-z0-9]|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - len(astuple(control)) - len(TAG_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    numbers = " ".join(map(str, range(200)))
    tokenizer.train_from_iterator([*corpus, *[numbers] * 20], trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in astuple(control)])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in TAG_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=control.turn_end,
        pad_token=control.end_of_text,
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
    )


def model_config(spec: TinySpec, tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    """The config of a model of `spec` with the vocabulary of `tokenizer`."""
    family = FAMILIES[spec.family]
    tokens = family.tokens
    token = tokenizer.convert_tokens_to_ids
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": spec.text_width,
        "intermediate_size": spec.text_mlp,
        "num_hidden_layers": spec.text_layers,
        "num_attention_heads": spec.text_heads,
        "num_key_value_heads": spec.text_kv_heads or max(1, spec.text_heads // 2),
        "max_position_embeddings": spec.max_positions,
        "tie_word_embeddings": True,
        "initializer_range": INITIALIZER_RANGE,
        "bos_token_id": token(tokens.end_of_text),
        "eos_token_id": token(tokens.turn_end),
        "pad_token_id": token(tokens.end_of_text),
    }
    vision: dict[str, Any] = {
        "depth": spec.vision_layers,
        "hidden_size": spec.vision_width,
        "intermediate_size": spec.vision_mlp,
        "num_heads": spec.vision_heads,
        "out_hidden_size": spec.text_width,
        family.patch_key: spec.patch,
        family.merge_key: spec.merge,
        family.step_frames_key: STEP_FRAMES,
        "initializer_range": INITIALIZER_RANGE,
    }
    _add_family_options(family, spec, text, vision)
    ids = {
        family.image_token_key: tokens.image_pad,
        family.video_token_key: tokens.video_pad,
        family.vision_start_key: tokens.vision_start,
        family.vision_end_key: tokens.vision_end,
    }
    return AutoConfig.for_model(
        spec.family,
        text_config=text,
        **{family.vision_key: vision},
        **{key: token(name) for key, name in ids.items()},
        tie_word_embeddings=True,
    )


def _add_family_options(family: Family, spec: TinySpec, text: dict[str, Any], vision: dict[str, Any]) -> None:
    """Add the keys that only some families have to the text and vision configs."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}
    half_head = spec.text_width // spec.text_heads // 2
    if family.interleaved_rope:
        third = half_head // 3
        section = [half_head - 2 * third, third, third]
        text |= {"head_dim": 2 * half_head}
        rope |= {"mrope_interleaved": True}
    else:
        section = [half_head // 4, (half_head - half_head // 4) // 2]
        section.append(half_head - sum(section))
    text |= {"rope_parameters": rope | {"mrope_section": section}}
    if family.windowed_vision:
        vision |= {"window_size": 8 * spec.patch, "fullatt_block_indexes": list(range(spec.vision_layers))}
    else:
        vision |= {"num_position_embeddings": 64}  # a grid of 8 x 8, stretched over each image
    if family.deepstack:
        # Every layer but the last hands its features to a layer of the text model.
        vision |= {"deepstack_visual_indexes": list(range(spec.vision_layers - 1))[: spec.text_layers]}
    if family.sliding_window_key is not None:
        text |= {family.sliding_window_key: False}
    if family.seconds_key is not None:
        vision |= {family.seconds_key: POSITIONS_PER_SECOND}


def create_tiny_model(folder: Path, spec: TinySpec | None = None, corpus: Iterable[str] = (), seed: int = 0) -> None:
    """Write a random model, its tokenizer and processor files into `folder` (created if absent)."""
    disable_progress_bar()  # it would show for a single small file
    spec = spec or TinySpec()
    folder.mkdir(parents=True, exist_ok=True)
    family = FAMILIES[spec.family]
    tokenizer = train_tokenizer(corpus, spec.vocab, family.tokens)
    tokenizer.chat_template = chat_template(family.tokens)
    config = model_config(spec, tokenizer)
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config).to(torch.float32)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    side = spec.patch * spec.merge
    processor = {
        "processor_class": family.processor_class,
        "patch_size": spec.patch,
        "merge_size": spec.merge,
        "temporal_patch_size": STEP_FRAMES,
        # Frames are already resized by the sampling contract; with these bounds the processor keeps their size.
        "size": {"shortest_edge": side * side, "longest_edge": 1280 * side * side},
        "image_mean": family.pixel_mean,
        "image_std": family.pixel_std,
    }
    for file, kind, name in (
        ("preprocessor_config.json", "image_processor_type", family.image_processor),
        ("video_preprocessor_config.json", "video_processor_type", family.video_processor),
    ):
        (folder / file).write_text(json.dumps({kind: name} | processor, indent=1), encoding="utf-8")
