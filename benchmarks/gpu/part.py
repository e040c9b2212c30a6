"""`python -m benchmarks.gpu.part NAME DEVICE [--small]`: one part of the benchmark, which prints one line of JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from benchmarks.gpu.setting import Setting

# Each part's module and what its `measure` takes besides the setting, in the order in which they run.
PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "attention": ("attention", ()),
    "zero_step": ("zero_step", ()),
    "head": ("head", ()),
    "copies": ("copies", ()),
    "optimizer": ("optimizer", ()),
    "compilation": ("compilation", ()),
    "layers": ("layers", ()),
    "mfu_3b": ("utilisation", ("3b",)),
    "mfu_7b": ("utilisation", ("7b",)),
}


def measurement(name: str) -> Callable[[Setting], dict[str, Any]]:
    """The function of a part."""
    module, arguments = PARTS[name]
    measure = import_module(f"benchmarks.gpu.{module}").measure
    return lambda setting: measure(setting, *arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description="One part of benchmarks.gpu.")
    parser.add_argument("name", choices=PARTS)
    parser.add_argument("device", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    if args.small:
        torch.set_num_threads(1)
    print(json.dumps(measurement(args.name)(Setting(torch.device(args.device), args.small))))


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # the parts after this one go on, so its reason is a line of the result
        print(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", file=sys.stderr)
        sys.exit(1)
