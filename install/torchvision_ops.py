"""Makes a CUDA build of torchvision importable with a CPU build of torch; does nothing in any other environment.

PyPI has no CPU build of torchvision, and the CUDA build cannot load its operators without CUDA. Importing it then fails
with "operator torchvision::nms does not exist", because the package registers fake kernels for two operators that are
not defined. Defining their schemas first is enough, because Qwen's image processors never call them.

`python install/torchvision_ops.py` copies this file into the environment's site-packages, with a `.pth` line that
imports it in every process (vLLM starts several). At start-up only a path finder is installed; torch is imported only
together with torchvision. An environment with PyTorch's CPU build of torchvision does not need this and is not
affected.
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

# The definitions of a library disappear when its object is deleted.
_kept_alive: list[Any] = []


def _version_file(package: str) -> str:
    """The text of `package`/version.py, without importing the package; empty if it does not exist."""
    spec = PathFinder.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return ""
    path = Path(spec.submodule_search_locations[0]) / "version.py"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def is_needed() -> bool:
    """Whether torchvision is a CUDA build and torch is not."""
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
    """Finds torchvision like Python's own finder, and defines its operators before the package is executed."""

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
    (site_packages / f"{MODULE}.pth").write_text(f"import {MODULE}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
elif __name__ == MODULE:
    sys.meta_path.insert(0, Finder)
