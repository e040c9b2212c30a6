"""`python -m benchmarks.gpu.zero_rank FOLDER OUT.npz`: steps of the model in FOLDER, as the one rank of a learner.

OUT gets the losses, gradient norms and seconds of the steps, and the weights after them.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig

from benchmarks.gpu.workload import make_unit, targets_of, with_random_targets
from learner.algorithm import AlgorithmConfig
from learner.losses import make_loss
from learner.model.policy import Rows
from learner.model.vision import Pixels
from learner.packing.shared_prefix import ImageSet
from learner.packing.step import MicroBatch
from learner.settings import LossConfig, PolicyConfig, RankConfig, ZeroConfig
from learner.zero.engine import build_engine, named_parameters, train_step
from learner.zero.gather import gather_buckets
from learner.zero.process_group import join_group, listen

STEPS, LEARNING_RATE, TIMEOUT_S = 2, 1e-3, 60.0
SIDE = 8  # patches along an image's side
BUCKET = 2**20
VOCAB = 200  # ids of ordinary tokens, below those of images


def main(model: Path, out: Path) -> None:
    join_group(listen("127.0.0.1", 1, TIMEOUT_S), 0, 1, TIMEOUT_S)
    loss = LossConfig(AlgorithmConfig())
    zero = ZeroConfig(grad_norm=1e9)
    config = RankConfig(str(model), (), PolicyConfig(train_vision=True), zero, loss)
    engine, objective = build_engine(config), make_loss(loss.algorithm)
    policy, device = engine.module, engine.device
    micro = row_with_image(model, policy.sizes.merge)
    rows, targets = Rows.of(micro.batch, device), targets_of(micro, device)
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(SIDE**2, policy.sizes.patch_values, generator=generator).to(device)
    pixels = Pixels(patches, torch.from_numpy(micro.batch.grids).to(device))
    losses, norms, seconds = [], [], []

    def forward() -> torch.Tensor:
        value = objective(engine(rows, pixels, 1.0), targets).loss
        losses.append(value.item())
        return value

    for _ in range(STEPS):
        start = time.perf_counter()
        norms.append(train_step(engine, [forward], LEARNING_RATE))
        seconds.append(time.perf_counter() - start)
    weights: dict[str, np.ndarray] = {}
    for gathered in gather_buckets(named_parameters(engine, frozen=False), {}, 0, 1, BUCKET, policy.family.layer):
        weights |= {f"weight {name}": view for name, view in gathered.packed.views.items()}
    np.savez(out, device=str(device), losses=losses, grad_norms=norms, seconds=seconds, **weights)


def row_with_image(model: Path, merge: int) -> MicroBatch:
    """A row of one group, whose prompt begins with an image."""
    rng = np.random.default_rng(0)
    unit = make_unit(rng, prompt=100, branches=4, completion=20, vocab=VOCAB)
    image = AutoConfig.from_pretrained(model).image_token_id
    unit.token_ids[: (SIDE // merge) ** 2] = image
    images = ImageSet("image", None, np.array([[1, SIDE, SIDE]], np.int32), np.ones(1, np.int32))
    return with_random_targets(rng, [replace(unit, images=(images,))])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
