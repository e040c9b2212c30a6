"""`python -m benchmarks.gpu [PART …]`: measures the learner's code on one GPU, in about ten minutes.

Prints one line of JSON for each part as it ends, after one on the machine; docs/gpu.md says what they mean. Each part
is a process of its own, so that one that fails, even by an error after which CUDA does not go on, leaves the others
alone.
Exit codes: 0 all parts ended; 1 some failed, whose lines have an `error`; 2 no GPU.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.part import PARTS

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "transformers", "numpy", "deepspeed", "triton")


def machine(device: str) -> dict[str, Any]:
    """The card and the versions that the numbers are of."""
    installed = {package: _version(package) for package in PACKAGES}
    if device == "cpu":
        return {"card": "CPU", "cuda": None} | installed
    capability = ".".join(map(str, torch.cuda.get_device_capability()))
    return {"card": torch.cuda.get_device_name(), "capability": capability, "cuda": torch.version.cuda} | installed


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def result(name: str, device: str, small: bool, left_s: float) -> dict[str, Any]:
    """What a part measures in at most `left_s` seconds, or its error."""
    if left_s <= 0:
        return {"error": "no time is left; raise --minutes, or name this part alone"}
    command = [sys.executable, "-m", "benchmarks.gpu.part", name, device, *(["--small"] if small else [])]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=left_s)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {left_s:.0f} s; raise --minutes, or name this part alone"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"error": lines[-1]}
    measured: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return measured


def main() -> int:
    parser = argparse.ArgumentParser(description="What the learner does on one GPU.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"default: all of {', '.join(PARTS)}")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes with which a CPU runs the same code in seconds")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all parts together (default %(default)s)")
    args = parser.parse_args()
    if unknown := [part for part in args.parts if part not in PARTS]:
        print(f"gpu: {unknown[0]}: no such part; must be one of {', '.join(PARTS)}", file=sys.stderr)
        return 2
    if args.device == "cuda" and not torch.cuda.is_available():
        print("gpu: torch sees no CUDA GPU here; --device cpu --small runs the same code on the CPU", file=sys.stderr)
        return 2
    print(json.dumps({"part": "machine", **machine(args.device)}), flush=True)
    end, failed = time.monotonic() + 60 * args.minutes, False
    for name in args.parts or PARTS:
        start = time.monotonic()
        measured = result(name, args.device, args.small, end - start)
        failed |= "error" in measured
        print(json.dumps({"part": name, "wall_s": round(time.monotonic() - start, 1), **measured}), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
