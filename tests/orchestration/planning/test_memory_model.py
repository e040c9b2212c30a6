"""The memory model against torch's own accounting of transformers' models on meta tensors."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from benchmarks.logprob_memory import peak_mib
from evidence.families import FAMILIES
from learner.model.head import ScoringHead
from learner.model.lora import add_adapters
from learner.settings import LoraSpec, PolicyConfig
from orchestration.planning.memory import activations, head_chunks, layer_activations
from orchestration.planning.shapes import Shape, TextShape, read_shape, shipped
from tests.meta_models import meta_model, peak_activations, saved_bytes

TOKENS = 16384
Measured = tuple[Shape, PreTrainedModel]


@pytest.fixture(scope="module", params=shipped())
def measured(request: pytest.FixtureRequest) -> Measured:
    return read_shape("model.policy", request.param), meta_model(request.param)


def test_parameters_are_those_of_the_model(measured: Measured) -> None:
    shape, model = measured
    tower = sum(p.numel() for p in model.model.visual.parameters())
    assert (shape.vision.parameters, shape.parameters) == (tower, sum(p.numel() for p in model.parameters()))


def test_activations_are_what_torch_counts(measured: Measured) -> None:
    shape, model = measured
    saved = shape.text.layers * layer_activations(shape.text, 2) * TOKENS
    assert saved == pytest.approx(saved_bytes(model, TOKENS), rel=0.02)
    for checkpointing in (False, True):
        counted = peak_activations(model, TOKENS, checkpointing)
        assert activations(shape.text, TOKENS, 2, checkpointing) == pytest.approx(counted, rel=0.05)


def test_seven_billion_keep_238_kb_per_token_and_layer() -> None:
    text = read_shape("model.policy", "Qwen2.5-VL-7B-Instruct").text
    assert layer_activations(text, 2) == pytest.approx(238_000, rel=0.005)


def test_adapters_are_those_of_peft() -> None:
    shape, model = read_shape("model.policy", "Qwen2.5-VL-3B-Instruct"), meta_model("Qwen2.5-VL-3B-Instruct")
    family, spec = FAMILIES["qwen2_5_vl"], LoraSpec(rank=8)
    add_adapters(model, family, spec)
    adapters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert shape.text.lora_parameters(spec.rank, family.lora_layers) == adapters


def test_the_head_is_counted_as_it_runs() -> None:
    width, vocab, tokens, chunk_mib = 64, 10_000, 1024, 2
    text = TextShape(1, width, 1, 1, 1, width, vocab, tied=False, query_key_norm=False)
    head = nn.Linear(width, vocab, bias=False)
    hidden, targets = torch.randn(tokens, width, requires_grad=True), torch.randint(vocab, (tokens,))
    score = ScoringHead(head, (), chunk_mib)
    counted = peak_mib(lambda: score(hidden, targets, 1.0)[0], head)
    planned = head_chunks(text, PolicyConfig(logit_chunk_mib=chunk_mib), tokens, 4) / 2**20
    assert planned == pytest.approx(counted, rel=0.1)
