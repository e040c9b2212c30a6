"""The learner's step in a bare loop: the same forwards, loss and optimizer in one process.

`engine` uses the same DeepSpeed engine, on tensors made before the clock starts; `torch` is the model and AdamW in
plain torch. The difference between our step and `engine` is the cost of our actor, packing and logging.

`python -m benchmarks.learner_bare STEP.pickle engine` (or torch) reads (RankConfig, forwards, learning rate), runs a
step for each line on standard input and prints its CPU seconds; at the end it prints the loss of the first step as
JSON.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForImageTextToText

from benchmarks.turns import CPU_SECONDS
from evidence.families import read_family
from learner.losses import TokenTargets, make_loss
from learner.model.patches import Patcher
from learner.model.policy import Policy, Rows
from learner.model.vision import Pixels, encode
from learner.packing.step import MicroBatch
from learner.settings import RankConfig
from learner.zero.engine import build_engine
from learner.zero.process_group import join_group, listen

TIMEOUT_S = 60.0

# Runs one forward and returns its loss.
Run = Callable[[], torch.Tensor]


def runs_of(config: RankConfig, call: nn.Module, tower: nn.Module, forwards: Sequence[MicroBatch]) -> list[Run]:
    """For each forward, a function that runs `call` (the policy, or an engine around it) on tensors made here."""
    patcher, loss = Patcher.of_model(config.model), make_loss(config.loss.algorithm)
    deepstack = read_family(config.model).deepstack

    def run_of(micro: MicroBatch) -> Run:
        batch = micro.batch
        rows = Rows.of(batch)
        pixels = Pixels(patcher.patches(micro.images, batch.frame_counts), torch.from_numpy(batch.grids))
        arrays = (micro.weights, micro.advantages, micro.behaviour, batch.sequence)
        targets = TokenTargets(*map(torch.from_numpy, arrays))

        def run() -> torch.Tensor:
            with torch.no_grad():
                features = encode(tower, pixels, deepstack)
            return loss(call(rows, features, config.loss.temperature), targets).loss

        return run

    return [run_of(micro) for micro in forwards]


def engine_step(config: RankConfig, forwards: Sequence[MicroBatch], rate: float) -> Callable[[], float]:
    join_group(listen("127.0.0.1", 1, TIMEOUT_S), 0, 1, TIMEOUT_S)
    engine = build_engine(config)
    runs = runs_of(config, engine, engine.module.frozen_tower.module, forwards)
    for group in engine.optimizer.param_groups:
        group["lr"] = rate

    def step() -> float:
        total = 0.0
        for number, run in enumerate(runs):
            engine.set_gradient_accumulation_boundary(number == len(runs) - 1)
            loss = run()
            engine.backward(loss)
            total += loss.item()
        engine.step()
        return total

    return step


def torch_step(config: RankConfig, forwards: Sequence[MicroBatch], rate: float) -> Callable[[], float]:
    model = AutoModelForImageTextToText.from_pretrained(config.model, dtype=torch.float32)
    policy = Policy(model, config.banned_ids, config.policy)
    runs = runs_of(config, policy, policy.take_tower(), forwards)
    trained = [p for p in policy.parameters() if p.requires_grad]
    zero = config.zero
    optimizer = torch.optim.AdamW(trained, lr=rate, betas=zero.betas, weight_decay=zero.weight_decay)

    def step() -> float:
        total = 0.0
        for run in runs:
            loss = run()
            loss.backward()
            total += loss.item()
        nn.utils.clip_grad_norm_(trained, zero.grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        return total

    return step


def main() -> None:
    file, kind = sys.argv[1:]
    config, forwards, rate = pickle.loads(Path(file).read_bytes())
    torch.set_num_threads(config.threads)
    step = {"engine": engine_step, "torch": torch_step}[kind](config, forwards, rate)
    losses = []
    for _ in sys.stdin:
        before = time.process_time()
        losses.append(step())
        print(f"{CPU_SECONDS}{time.process_time() - before}", flush=True)
    print(json.dumps({"loss": losses[0]}))


if __name__ == "__main__":
    main()
