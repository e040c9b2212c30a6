"""Model FLOPs utilisation of a step of the learner, by packing mode.

    python -m benchmarks.learner_mfu --shape 3b --peak-tflops 989

makes a random model of that shape (3b and 7b are Qwen2.5-VL's, `small` is for a CPU) and prints for each mode the
seconds of a step, completion tokens per second and the utilisation: FLOPs of the model's forward and backward over the
tokens that are run (benchmarks/flops), divided by seconds times the peak of all ranks. Work that gradient checkpointing
and the head repeat is not counted, and a frozen tower counts only its forward. Each step encodes its clips again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from benchmarks.flops import language_flops, tower_flops
from benchmarks.learner import LEARNING_RATE, parts_of
from benchmarks.learner_task import SIZES, Task, make_task
from evidence.errors import BadInput
from evidence.limits import Limits
from learner.algorithm import AlgorithmConfig
from learner.model.tiny import TinySpec
from learner.settings import DTYPES, OFFLOADS, PACKING_MODES, LossConfig, PolicyConfig, RankConfig, ZeroConfig
from orchestration.supervision.cluster import start_ray
from orchestration.supervision.learner_gang import LearnerGang

TOWER = {"vision_layers": 32, "vision_width": 1280, "vision_mlp": 3420, "vision_heads": 16}
SHAPES = {
    "small": SIZES,
    "3b": TinySpec(
        text_layers=36,
        text_width=2048,
        text_mlp=11008,
        text_heads=16,
        text_kv_heads=2,
        vocab=151_936,
        max_positions=32_768,
        **TOWER,
    ),
    "7b": TinySpec(
        text_layers=28,
        text_width=3584,
        text_mlp=18944,
        text_heads=28,
        text_kv_heads=4,
        vocab=152_064,
        max_positions=32_768,
        **TOWER,
    ),
}


def step_flops(folder: Path, tasks: list[Task], mode: str, ranks: int, budget: int, train_vision: bool) -> float:
    config = AutoConfig.from_pretrained(folder)
    total = 0.0
    for micro in (micro for part in parts_of(tasks, mode, ranks, budget) for micro in part):
        tower = tower_flops(config.vision_config, micro.batch.grids)
        total += language_flops(config.get_text_config(), micro.batch) + (3 if train_vision else 1) * tower
    return total


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    sizes = [SHAPES[args.shape], *[None] * (args.groups - 1)]
    shape = args.prompt, args.completion, args.group
    tasks = [make_task(folder, *shape, sizes=size, seed=seed) for seed, size in enumerate(sizes)]
    config = RankConfig(
        model=str(folder),
        banned_ids=(),
        loss=LossConfig(AlgorithmConfig()),
        policy=PolicyConfig(
            train_vision=args.train_vision, vision_cache_mib=0, gradient_checkpointing=args.checkpointing
        ),
        zero=ZeroConfig(precision=args.precision, offload_optimizer=args.offload),
    )
    gang = LearnerGang(replace(config, limits=Limits(step_s=1800.0)), args.ranks, float(torch.cuda.is_available()))
    by_mode: dict[str, Any] = {}
    for mode in args.modes:
        seconds = []
        for number in range(args.steps + 1):
            start = time.perf_counter()
            gang.train_step(parts_of(tasks, mode, args.ranks, args.budget), LEARNING_RATE)
            seconds.append(time.perf_counter() - start)
            print(f"{mode}: step {number} of {args.steps}, {seconds[-1]:.2f} s", file=sys.stderr)
        step = statistics.median(seconds[1:])  # the first step compiles and allocates
        flops = step_flops(folder, tasks, mode, args.ranks, args.budget, args.train_vision)
        by_mode[mode] = {
            "step_s": step,
            "completion_tokens_per_s": args.groups * args.group * args.completion / step,
            "tflop": flops / 1e12,
            "mfu": flops / (step * args.ranks * args.peak_tflops * 1e12),
        }
    gang.stop()
    return by_mode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--peak-tflops", type=float, required=True, help="of one device, dense, in the precision used")
    parser.add_argument("--prompt", type=int, default=4096, help="tokens, nearly all of them visual (%(default)s)")
    parser.add_argument("--completion", type=int, default=512, help="tokens (%(default)s)")
    parser.add_argument("--group", type=int, default=8, help="completions per prompt (%(default)s)")
    parser.add_argument("--groups", type=int, default=4, help="prompts per step (%(default)s)")
    parser.add_argument("--budget", type=int, default=16_384, help="tokens per forward (%(default)s)")
    parser.add_argument("--modes", nargs="+", choices=PACKING_MODES, default=PACKING_MODES)
    parser.add_argument("--steps", type=int, default=5, help="timed steps, after a first one that is not (%(default)s)")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--precision", choices=DTYPES, default="bfloat16", help="(%(default)s)")
    parser.add_argument("--offload", choices=OFFLOADS, default="none", help="of the optimizer; 7b on one GPU needs cpu")
    parser.add_argument("--checkpointing", action="store_true", help="of activations")
    parser.add_argument("--train-vision", action="store_true")
    args = parser.parse_args()
    with start_ray(object_store_gib=1.0), tempfile.TemporaryDirectory() as scratch:
        by_mode = measure(Path(scratch, "model"), args)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(json.dumps({"device": device, **vars(args), "found": by_mode}))


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        print(f"learner_mfu: {error}", file=sys.stderr)
        sys.exit(2)
