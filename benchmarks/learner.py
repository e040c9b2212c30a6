"""Cost of an optimizer step: with and without packing, compared with TRL and with a bare loop around the same engine.

`python -m benchmarks.learner [--json] [--growth]`. All use the same model, the same group of completions and one
thread. Their rounds alternate, and CPU seconds of the working processes are compared: on an idle machine they equal
wall seconds, and on a busy one they do not change. The first step of each is left out.

    none, prefix      our step with a trained vision tower, which encodes images per completion, or once per group
    ..._frozen        the same with a frozen tower
    ..._lm            the same with cached features of the images, so that only the language model's part is left
    trl, trl_frozen   TRL's GRPOTrainer on the same completions (benchmarks/learner_trl.py)
    engine, torch     the same forwards as prefix_frozen in a bare loop (benchmarks/learner_bare.py)

`limit…` is the upper bound that FLOPs set on the corresponding ratio. `--growth` adds the cost by prompt length, group
size and ranks. The last line of `--json` is one object.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

# If this file is run by its path, its folder comes first on sys.path, and the file would shadow the package `learner`.
sys.path = [str(Path(__file__).parents[1]), *(p for p in sys.path if Path(p).absolute() != Path(__file__).parent)]

import numpy as np
import psutil
import ray
from transformers import AutoConfig

from benchmarks.flops import language_flops
from benchmarks.learner_task import Task, make_task, vision_flops, write
from benchmarks.trl_environment import trl_turns
from benchmarks.turns import Turns
from learner.aggregation import token_weights
from learner.algorithm import AlgorithmConfig
from learner.packing.batch import waste
from learner.packing.shared_prefix import Branch, Unit, make_unit
from learner.packing.step import MicroBatch, StepTargets, gather_tokens, lay_out, with_targets
from learner.settings import LossConfig, PackingConfig, PolicyConfig, RankConfig
from orchestration.supervision.cluster import start_ray
from orchestration.supervision.learner_gang import LearnerGang

PROMPT, COMPLETION, GROUP = 512, 64, 8
LEARNING_RATE = 1e-6
BUDGET = 16_384


def parts_of(tasks: Sequence[Task], mode: str, ranks: int = 1, budget: int = BUDGET) -> list[list[MicroBatch]]:
    """The forwards of each rank in a GRPO step over groups."""
    units = [
        make_unit([t.prompt] * len(t.completions), list(t.completions), [(f"clip {n}", t.frames)])
        for n, t in enumerate(tasks)
    ]
    lengths = np.array([t.completions.shape[1] for t in tasks for _ in t.completions])
    targets = StepTargets(
        weights=token_weights(lengths, "sequence_mean"),
        advantages=np.concatenate([np.repeat(t.advantages, t.completions.shape[1]) for t in tasks]),
        behaviour=np.concatenate([t.behaviour.ravel() for t in tasks]),
    )
    return with_targets(lay_out(units, ranks, PackingConfig(mode, budget)), targets)


class Ours:
    """Times our step in this process, which packs, and in the ranks."""

    def __init__(self, config: RankConfig, ranks: int = 1):
        self.gang = LearnerGang(config, ranks)
        pids = ray.get([rank.__ray_call__.remote(lambda _: os.getpid()) for rank in self.gang.ranks])
        self.first: dict[str, float] = {}  # metrics of the first step
        self.processes = [psutil.Process(), *map(psutil.Process, pids)]

    def step(self, tasks: Sequence[Task], mode: str) -> float:
        """Run a step and return its CPU seconds."""
        before = self._cpu()
        metrics = self.gang.train_step(parts_of(tasks, mode, len(self.gang.ranks)), LEARNING_RATE)
        self.first = self.first or metrics
        return self._cpu() - before

    def _cpu(self) -> float:
        times = [process.cpu_times() for process in self.processes]
        return sum(t.user + t.system for t in times)


def alternate(steps: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each step, round by round, after a first round that is not counted."""
    cpu_seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            seconds = step()
            if number:
                cpu_seconds[name].append(seconds)
        print(f"round {number} of {rounds}", file=sys.stderr)
    return cpu_seconds


def long_tail_waste(mode: str) -> float:
    """Share of padding for completions of log-normal length, a few of which have ten times the median."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(300), 0.8, 256), 16, 4096).astype(int)
    zeros = [np.zeros(n, np.int32) for n in lengths]
    units = [
        Unit(zeros[0][:0], np.zeros((3, 0), np.int32), (), (Branch(z, np.zeros((3, len(z)), np.int32), z),))
        for z in zeros
    ]
    parts = lay_out(units, 4, PackingConfig(mode, BUDGET))
    return waste([layout.batch for forwards in parts for layout in forwards])


def growth(folder: Path, config: RankConfig, rounds: int) -> dict[str, Any]:
    """CPU seconds of a `prefix` step by prompt length, group size and ranks, and the fitted exponents."""
    table: dict[str, Any] = {}
    ours = Ours(config)
    for name, sizes in (("prompt", (256, 512, 1024, 2048)), ("group", (2, 4, 8, 16))):
        tasks = {
            n: make_task(folder, *((n, COMPLETION, GROUP) if name == "prompt" else (PROMPT, COMPLETION, n)), sizes=None)
            for n in sizes
        }
        steps = {str(n): lambda task=task: ours.step([task], "prefix") for n, task in tasks.items()}
        table[name] = fitted(alternate(steps, rounds))
    ours.gang.stop()
    four = [make_task(folder, PROMPT, COMPLETION, GROUP, sizes=None, seed=n) for n in range(4)]
    world = {n: Ours(config, n) for n in (1, 2, 4)}
    steps = {str(n): lambda ours=ours: ours.step(four, "prefix") for n, ours in world.items()}
    table["ranks"] = fitted(alternate(steps, rounds))
    for ours in world.values():
        ours.gang.stop()
    return table


def fitted(cpu_seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Median CPU seconds by size, and the exponent of their growth with the size."""
    seconds = {n: statistics.median(times) for n, times in cpu_seconds.items()}
    sizes = [int(n) for n in seconds]
    power = np.polyfit(np.log(sizes), np.log(list(seconds.values())), 1)[0]
    return {"cpu_seconds": seconds, "power": float(power)}


def flops_limits(task: Task, folder: Path) -> dict[str, float]:
    """The speed-ups of `prefix` over `none` that FLOPs and tokens allow, and the vision tower's share of `none`."""
    text = AutoConfig.from_pretrained(folder).get_text_config()
    flops = {
        mode: sum(language_flops(text, micro.batch, head_passes=4) for micro in parts_of([task], mode)[0])
        for mode in ("none", "prefix")
    }
    tower, whole = vision_flops(task, folder)
    # A frozen tower has one forward; a trained one also has a backward, which costs two forwards.
    limits = {
        name: (passes * GROUP * tower + flops["none"]) / (passes * tower + flops["prefix"])
        for name, passes in (("limit", 3), ("limit_frozen", 1), ("lm_limit", 0))
    }
    token_limit = GROUP * (PROMPT + COMPLETION) / (PROMPT + GROUP * COMPLETION)
    return limits | {"token_limit": token_limit, "vision_share_of_none": tower / whole}


def measure(folder: Path, scratch: Path, rounds: int, with_growth: bool) -> dict[str, Any]:
    task = make_task(folder, PROMPT, COMPLETION, GROUP)
    config = RankConfig(
        model=str(folder),
        banned_ids=(),
        loss=LossConfig(AlgorithmConfig()),
        policy=PolicyConfig(vision_cache_mib=0),
    )
    towers = {
        "": Ours(replace(config, policy=PolicyConfig(train_vision=True))),
        "_frozen": Ours(config),
        "_lm": Ours(replace(config, policy=PolicyConfig(vision_cache_mib=64))),
    }
    (parts,) = parts_of([task], "prefix")
    ours = gather_tokens([parts], towers["_frozen"].gang.logprobs([parts]))
    write(task, folder, scratch / "task.npz", ours.reshape(task.completions.shape))
    (scratch / "step.pickle").write_bytes(pickle.dumps((config, parts, LEARNING_RATE)))
    others = {
        kind: Turns([sys.executable, "-m", "benchmarks.learner_bare", str(scratch / "step.pickle"), kind])
        for kind in ("engine", "torch")
    }
    for name, trained in (("trl", True), ("trl_frozen", False)):
        others[name] = trl_turns(scratch / "task.npz", folder, threads=1, train_vision=trained)
    steps = {
        f"{mode}{suffix}": lambda mode=mode, ours=ours: ours.step([task], mode)
        for suffix, ours in towers.items()
        for mode in ("none", "prefix")
    }
    cpu_seconds = alternate(steps | {name: turns.step for name, turns in others.items()}, rounds)
    for ours in towers.values():
        ours.gang.stop()
    reports = {name: turns.end() for name, turns in others.items()}
    median = {name: statistics.median(times) for name, times in cpu_seconds.items()}
    losses = [towers["_frozen"].first["loss"], *(reports[name]["loss"] for name in ("engine", "torch", "trl_frozen"))]
    norms = [towers["_frozen"].first["grad_norm"], reports["trl_frozen"]["grad_norm"]]
    return {
        "prefix_vs_none": median["none"] / median["prefix"],
        "prefix_vs_none_frozen": median["none_frozen"] / median["prefix_frozen"],
        "prefix_vs_none_lm": median["none_lm"] / median["prefix_lm"],
        **flops_limits(task, folder),
        "prefix_vs_trl": median["trl"] / median["prefix"],
        "prefix_vs_trl_frozen": median["trl_frozen"] / median["prefix_frozen"],
        "none_vs_trl": median["trl"] / median["none"],
        "step_vs_bare": median["prefix_frozen"] / median["engine"],
        "step_vs_torch": median["prefix_frozen"] / median["torch"],
        "waste": {mode: long_tail_waste(mode) for mode in ("none", "sequence")},
        # In the first step; they show that all do the same update.
        "differences": {
            "logprobs": reports["trl_frozen"]["logprobs_max_difference"],
            "loss": max(losses) - min(losses),
            "grad_norm": max(norms) / min(norms) - 1,
        },
        "cpu_seconds": cpu_seconds,
        "versions": {name: reports["trl"][name] for name in ("trl", "transformers", "torch")},
        **({"growth": growth(folder, config, rounds)} if with_growth else {}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--growth", action="store_true", help="also by prompt length, group size and ranks")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON instead of a table")
    args = parser.parse_args()
    # Ray starts workers at niceness 15; on a busy machine the comparison would not be fair.
    os.environ.update({"RAY_worker_niceness": "0"})
    with start_ray(object_store_gib=0.25), tempfile.TemporaryDirectory() as scratch:
        results = measure(Path(scratch, "model"), Path(scratch), args.rounds, args.growth)
    if args.json:
        print(json.dumps(results))
        return
    for name, value in results.items():
        print(f"{name:>22}  {value:.3f}" if isinstance(value, float) else f"{name:>22}  {json.dumps(value)}")


if __name__ == "__main__":
    main()
