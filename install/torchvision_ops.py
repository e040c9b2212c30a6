"""Lets a CUDA build of torchvision be imported beside a CPU build of torch; inert everywhere else.

PyPI has no CPU build of torchvision, and its CUDA build cannot load its own operators without CUDA. Importing it then
ends with "operator torchvision::nms does not exist", because the package registers a fake kernel for two operators
that nobody has defined. Defining their schemas first is enough: Qwen's image processors never call them.

`python install/torchvision_ops.py` copies this file into the environment's site-packages with a `.pth` line that
imports it in every process (vLLM starts several of its own). Nothing but a path finder is set up at start-up: torch is
imported only when torchvision is. An environment with PyTorch's own CPU torchvision does not need this and is not
touched by it.
"""

from __future__ import annotations

import re
import shutil
import sys
import sysconfig
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

MODULE = "ser_torchvision_ops"
SCHEMAS = ("nms", "qnms")

# A library's definitions vanish with the object that made them.
_kept_alive: list[Any] = []


def _version_file(package: str) -> str:
    """The text of `package`/version.py, without importing the package; empty where there is none."""
    spec = PathFinder.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return ""
    path = Path(spec.submodule_search_locations[0]) / "version.py"
    return path.read_text() if path.exists() else ""


def is_needed() -> bool:
    """True where torchvision is a CUDA build and torch is not."""
    cuda_torchvision = re.search(r"^__version__ = '[^']*\+cu\d+'", _version_file("torchvision"), re.MULTILINE)
    cpu_torch = re.search(r"^cuda\b.*= None$", _version_file("torch"), re.MULTILINE)
    return bool(cuda_torchvision and cpu_torch)


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        import torch

        library = torch.library.Library("torchvision", "DEF")
        for name in SCHEMAS:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept_alive.append(library)
        super().exec_module(module)


class Finder:
    """Finds torchvision as Python itself would, but has its operators defined before its first line runs."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "torchvision" or not is_needed():
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(name, spec.origin)
        return spec


def main() -> None:
    site_packages = Path(sysconfig.get_paths()["purelib"])
    shutil.copyfile(__file__, site_packages / f"{MODULE}.py")
    (site_packages / f"{MODULE}.pth").write_text(f"import {MODULE}\n")


if __name__ == "__main__":
    main()
elif __name__ == MODULE:
    sys.meta_path.insert(0, Finder)
