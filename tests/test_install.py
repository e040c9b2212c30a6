"""The environment's start-up hook (install/torchvision_ops.py), in fresh processes like those that vLLM starts."""

from __future__ import annotations

import subprocess
import sys

NEEDS_OPERATORS = """
import torch, torchvision
from transformers import Qwen2VLImageProcessor
import numpy as np
pixels = Qwen2VLImageProcessor()(images=[np.zeros((56, 56, 3), np.uint8)], return_tensors="pt")["pixel_values"]
assert pixels.shape == (16, 1176), pixels.shape
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_torchvision_and_the_image_processor_work_in_a_fresh_process():
    done = run(NEEDS_OPERATORS)
    assert done.returncode == 0, done.stderr


def test_python_start_and_finding_torchvision_do_not_import_torch():
    done = run(
        "import sys, importlib.util; assert 'torch' not in sys.modules; "
        "assert importlib.util.find_spec('torchvision'); assert 'torch' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr


def test_the_hook_does_nothing_with_a_cuda_torch(tmp_path):
    """A GPU torch with the CUDA torchvision: torchvision's own loader, no schemas of ours."""
    for package, text in (("torch", "cuda: str | None = '13.0'\n"), ("torchvision", "__version__ = '0.28.0+cu130'\n")):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / "version.py").write_text(text)
    done = run(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import torchvision; assert 'torch' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr
