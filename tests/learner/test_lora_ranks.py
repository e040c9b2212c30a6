"""An adapter on two ranks: only the adapter is trained, saved and published; without it the model is the base."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from safetensors.torch import load_file
from saving import save
from shown import micro_batch, plain_logprobs, plain_policy
from test_ranks import weights_of

from evidence.errors import BadInput
from evidence.limits import Limits
from learner.checkpoints import Record, record_of, remove_checkpoint
from learner.model.patches import Patcher
from learner.settings import LoraSpec, PolicyConfig, RankConfig, ReferenceConfig, ZeroConfig
from learner.zero.consolidate import WholeModel
from orchestration.supervision.learner_gang import LearnerGang
from orchestration.supervision.reference import Reference

pytestmark = pytest.mark.slow
LEARNING_RATE = 1e-2
SPEC = LoraSpec(rank=4, alpha=6.0)


def config_of(model: Path, encoder: Any, lora: LoraSpec | None = SPEC) -> RankConfig:
    return RankConfig(
        model=str(model),
        banned_ids=encoder.banned_ids,
        policy=PolicyConfig(lora=lora, gradient_checkpointing=True),
        zero=ZeroConfig(grad_norm=1e9),
    )


@pytest.fixture(scope="module")
def gang(ray_cluster: Any, tiny_model: Path, encoder: Any) -> Iterator[LearnerGang]:
    gang = LearnerGang(config_of(tiny_model, encoder), 2)
    yield gang
    gang.stop()


def test_only_the_adapter_is_trained_saved_and_published(
    gang: LearnerGang, ray_cluster: Any, tiny_model: Path, encoder: Any, tmp_path: Path
) -> None:
    parts = [[micro_batch(encoder, "image", 1)], [micro_batch(encoder, "text", 2)]]
    patcher = Patcher.of_model(tiny_model)

    def logprobs_of(folder: Path) -> list[np.ndarray]:
        policy = plain_policy(folder, encoder, PolicyConfig())
        return [plain_logprobs(policy, patcher, m).detach().numpy() for part in parts for m in part]

    def flat(logprobs: list[list[np.ndarray]]) -> list[np.ndarray]:
        return [array for part in logprobs for array in part]

    def check(logprobs: list[list[np.ndarray]], expected: list[np.ndarray]) -> None:
        for ours, theirs in zip(flat(logprobs), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)

    base = logprobs_of(tiny_model)
    check(gang.logprobs(parts), base)
    save(gang, tmp_path, 0)
    for _ in range(3):
        gang.train_step(parts, LEARNING_RATE)
    trained = gang.logprobs(parts)
    assert max(np.abs(a - b).max() for a, b in zip(flat(trained), base)) > 0.1
    check(gang.reference_logprobs(parts), base)
    check(gang.logprobs(parts), flat(trained))

    published = weights_of(ray_cluster, gang)
    layers = {name.rpartition(".")[0] for name in published}
    assert len(layers) == 4 * 7, "q, k, v, o, gate, up and down of each layer"
    for layer in layers:
        a, b, scale = (published.pop(f"{layer}.{part}") for part in ("lora_A", "lora_B", "lora_scale"))
        assert (a.shape[0], b.shape[1], float(scale)) == (4, 4, 1.5)
    assert not published

    gang.export(tmp_path / "merged", "float32")
    check(trained, logprobs_of(tmp_path / "merged"))
    before, merged = load_file(tiny_model / "model.safetensors"), load_file(tmp_path / "merged/model.safetensors")
    assert len(before) == len(merged)

    saved = sum(file.stat().st_size for file in (tmp_path / "step-000000").iterdir())
    assert saved < 4 * 4 * 1.5 * gang.trained_parameters, "weights, master weights and moments of the adapter only"
    save(gang, tmp_path, 3)
    record = tmp_path / "step-000003.json"
    whole = dict(WholeModel(record, Record.read(record), average=False).tensors())
    assert whole.keys() == merged.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, merged[name], atol=1e-6, rtol=1e-6)
    remove_checkpoint(record)
    gang.load(record_of(tmp_path, 0))
    check(gang.logprobs(parts), base)
    for _ in range(3):
        gang.train_step(parts, LEARNING_RATE)
    check(gang.logprobs(parts), flat(trained))


@pytest.fixture(scope="module")
def frozen(gang: LearnerGang, tiny_model: Path, encoder: Any) -> Iterator[Reference]:
    """A frozen reference on three ranks, to which four micro-batches cannot be dealt evenly."""
    frozen = Reference(ReferenceConfig("frozen", ranks=3), gang, config_of(tiny_model, encoder))
    yield frozen
    frozen.stop()


def test_a_frozen_copy_and_a_policy_without_its_adapter_agree(
    gang: LearnerGang, frozen: Reference, tiny_model: Path, encoder: Any
) -> None:
    parts = [
        [micro_batch(encoder, "image", 1), micro_batch(encoder, "video", 3)],
        [micro_batch(encoder, "text", 2)] * 2,
    ]
    off = Reference(ReferenceConfig("lora_off"), gang, config_of(tiny_model, encoder)).logprobs(parts)
    for ours, theirs in zip(frozen.logprobs(parts), off, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


@ray.remote(num_cpus=0)
class Owner:
    """Owner of frames that are lost when it is killed, as other frames are when their node is lost."""

    def frames(self, of: tuple[np.ndarray, ...]) -> tuple[ray.ObjectRef, ...]:
        return tuple(map(ray.put, of))


def test_lost_frames_leave_no_rank_of_the_reference_waiting_and_no_frames_behind(
    frozen: Reference, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    micros = [micro_batch(encoder, "image", seed) for seed in (51, 52, 53)]
    owners = [Owner.remote() for _ in micros]
    refs = ray.get([owner.frames.remote(micro.images) for owner, micro in zip(owners, micros)])
    parts = [[replace(micro, images=images)] for micro, images in zip(micros, refs)]
    ray.kill(owners[1])
    with suppress(ray.exceptions.ObjectLostError):
        while True:  # until Ray notices the loss
            ray.get(list(refs[1]), timeout=60)
    with pytest.raises(ray.exceptions.ObjectLostError):
        frozen.logprobs(parts)
    monkeypatch.setattr(frozen.gang, "limits", Limits(step_s=60.0))
    parts[1] = [micros[1]]
    assert [len(logprobs) for (logprobs,) in frozen.logprobs(parts)] == [16] * 3
    kept = [rank.__ray_call__.remote(lambda rank: len(rank.fetched)) for rank in frozen.gang.ranks]
    assert ray.get(kept) == [0] * 3, "the bytes of a step are free when its leases are released"


def test_an_unknown_target_is_refused_by_name(tiny_model: Path, encoder: Any) -> None:
    with pytest.raises(BadInput, match="no layer c_attn, but down_proj"):
        plain_policy(tiny_model, encoder, PolicyConfig(lora=LoraSpec(targets=("q_proj", "c_attn"))))


def test_only_chosen_targets_get_an_adapter(tiny_model: Path, encoder: Any) -> None:
    policy = plain_policy(tiny_model, encoder, PolicyConfig(lora=LoraSpec(targets=("q_proj",))))
    trained = policy.checkpoint_parameters(frozen=False)
    assert {name.split(".")[-2] for name in trained} == {"q_proj"}
    assert not any(p.any() for name, p in trained.items() if name.endswith("lora_B"))
