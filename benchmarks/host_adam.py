"""Would DeepSpeed's AdamW for the host pay for its compiler? Its updates against those of torch's, plain and fused, in
turns over one of the learner's sub-groups, as an offloaded optimizer runs them.

    python -m benchmarks.host_adam [--threads N] [--updates N]

Prints one JSON line: the median over turns of each kind's seconds over those of `fused`, which is what the learner uses
with a GPU, the seconds of `fused`, and the largest difference of the weights to those of `plain`. Compiles DeepSpeed's
kernel in a folder of its own, which takes a C++ compiler and up to a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time

import numpy as np
import torch

from learner.settings import SUB_GROUP

KINDS = ("plain", "fused", "deepspeed")
RATE = 1e-4


def optimizer_of(kind: str, weight: torch.nn.Parameter) -> torch.optim.Optimizer:
    if kind == "deepspeed":
        from deepspeed.ops.adam import DeepSpeedCPUAdam  # compiles

        return DeepSpeedCPUAdam([weight], lr=RATE, adamw_mode=True)
    return torch.optim.AdamW([weight], lr=RATE, fused=kind == "fused")


def measure(elements: int, updates: int) -> dict[str, object]:
    torch.manual_seed(0)
    start, gradient = torch.randn(elements), torch.randn(elements)
    weights = {kind: torch.nn.Parameter(start.clone()) for kind in KINDS}
    optimizers = {kind: optimizer_of(kind, weight) for kind, weight in weights.items()}
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for weight in weights.values():
        weight.grad = gradient
    for turn in range(updates + 1):  # the first makes the moments
        for kind, optimizer in optimizers.items():
            began = time.perf_counter()
            optimizer.step()
            if turn:
                seconds[kind].append(time.perf_counter() - began)
    over = {kind: float(np.median(np.divide(seconds[kind], seconds["fused"]))) for kind in KINDS}
    with torch.no_grad():
        apart = {kind: float((weights[kind] - weights["plain"]).abs().max()) for kind in KINDS}
    return {
        "elements": elements,
        "threads": torch.get_num_threads(),
        "seconds_over_fused": over,
        "fused_s": float(np.median(seconds["fused"])),
        "largest_difference": apart,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: %(default)s")
    parser.add_argument("--updates", type=int, default=15, metavar="N", help="default: %(default)s")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCH_EXTENSIONS_DIR"] = folder
        print(json.dumps(measure(SUB_GROUP, args.updates)))


if __name__ == "__main__":
    main()
