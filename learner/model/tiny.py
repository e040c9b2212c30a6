"""A Qwen-VL small enough for two CPU cores, made from nothing: weights, tokenizer, processor, chat template.

Guarantees: the folder loads with transformers and vLLM alike; the tokenizer can write every byte; numbers up to 199
are one token each when the corpus holds no more frequent text, and the tags of the evidence grammar are one token
each, so that a claim is about 17 tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen3VLConfig
from transformers.utils.logging import disable_progress_bar

from evidence.config_checks import require_one_of

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TAG_TOKENS = tuple(f"<{slash}{tag}>" for tag in ("think", "answer", "obj", "box", "t") for slash in ("", "/"))

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif part['type'] == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# transformers' .02 suits widths of a thousand; narrow layers start too quiet with it.
INITIALIZER_RANGE = 0.04


# What each family's image processor takes from pixels of 0-1, and divides them by.
PIXEL_STATISTICS = {
    "qwen2_5_vl": ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
    "qwen3_vl": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
}


@dataclass
class TinySpec:
    """Family ("qwen2_5_vl" or "qwen3_vl") and sizes; text_kv_heads: by default half the heads. The defaults
    give 1.6M parameters with a vocabulary of 800."""

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
        require_one_of(self, PIXEL_STATISTICS, "family")


def train_tokenizer(corpus: Iterable[str], vocab: int) -> PreTrainedTokenizerFast:
    """A byte-complete BPE tokenizer of `vocab` tokens; whole numbers, decimals and words are never split by space."""
    tokenizer = Tokenizer(models.BPE())
    words = Regex(r"\d+\.\d+|\d+| ?[A-Za-z]+| ?[^\sA-Za-z0-9]|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - len(SPECIAL_TOKENS) - len(TAG_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    numbers = " ".join(map(str, range(200)))
    tokenizer.train_from_iterator([*corpus, *[numbers] * 20], trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in TAG_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
    )


def model_config(spec: TinySpec, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig | Qwen3VLConfig:
    token = tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": spec.text_width,
        "intermediate_size": spec.text_mlp,
        "num_hidden_layers": spec.text_layers,
        "num_attention_heads": spec.text_heads,
        "num_key_value_heads": spec.text_kv_heads or max(1, spec.text_heads // 2),
        "max_position_embeddings": spec.max_positions,
        "tie_word_embeddings": True,
        "initializer_range": INITIALIZER_RANGE,
        "bos_token_id": token("<|endoftext|>"),
        "eos_token_id": token("<|im_end|>"),
        "pad_token_id": token("<|endoftext|>"),
    }
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    vision = {
        "depth": spec.vision_layers,
        "hidden_size": spec.vision_width,
        "intermediate_size": spec.vision_mlp,
        "num_heads": spec.vision_heads,
        "out_hidden_size": spec.text_width,
        "patch_size": spec.patch,
        "spatial_merge_size": spec.merge,
        "temporal_patch_size": 2,
        "initializer_range": INITIALIZER_RANGE,
    }
    half_head = spec.text_width // spec.text_heads // 2
    if spec.family == "qwen3_vl":
        third = half_head // 3
        section = [half_head - 2 * third, third, third]
        text |= {"head_dim": 2 * half_head}
        rope |= {"mrope_interleaved": True}
        vision |= {
            # A grid of 8 x 8 learnt positions, stretched over each image.
            "num_position_embeddings": 64,
            # Every layer but the last hands its features to a layer of the text model.
            "deepstack_visual_indexes": list(range(spec.vision_layers - 1))[: spec.text_layers],
        }
    else:
        section = [half_head // 4, (half_head - half_head // 4) // 2]
        section.append(half_head - sum(section))
        text |= {"use_sliding_window": False}
        vision |= {
            "window_size": 8 * spec.patch,
            "fullatt_block_indexes": list(range(spec.vision_layers)),
            "tokens_per_second": 2,
        }
    family = {"qwen2_5_vl": Qwen2_5_VLConfig, "qwen3_vl": Qwen3VLConfig}[spec.family]
    return family(
        text_config=text | {"rope_parameters": rope | {"mrope_section": section}},
        vision_config=vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def create_tiny_model(folder: Path, spec: TinySpec | None = None, corpus: Iterable[str] = (), seed: int = 0) -> None:
    """Write a random model, its tokenizer and processor files into `folder` (created if absent)."""
    disable_progress_bar()  # of writing one small file
    spec = spec or TinySpec()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(corpus, spec.vocab)
    tokenizer.chat_template = CHAT_TEMPLATE
    config = model_config(spec, tokenizer)
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config).to(torch.float32)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    side = spec.patch * spec.merge
    mean, std = PIXEL_STATISTICS[spec.family]
    qwen3 = spec.family == "qwen3_vl"
    image_processor = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen3VLProcessor" if qwen3 else "Qwen2_5_VLProcessor",
        "patch_size": spec.patch,
        "merge_size": spec.merge,
        "temporal_patch_size": 2,
        # Frames arrive resized by the sampling contract; these bounds make the processor leave them as they are.
        "size": {"shortest_edge": side * side, "longest_edge": 1280 * side * side},
        "image_mean": mean,
        "image_std": std,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(image_processor, indent=1))
    kind = "Qwen3VLVideoProcessor" if qwen3 else "Qwen2VLVideoProcessor"
    video_processor = image_processor | {"video_processor_type": kind}
    del video_processor["image_processor_type"]
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video_processor, indent=1))
