"""ZeRO-3 steps of a tiny model, vision tower and images included, on the device and on the CPU, in float32.

Both run in processes of their own (benchmarks/gpu/zero_rank), since DeepSpeed knows one kind of device in each.
Compared are the losses, the gradient norms and the weights after the steps.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.setting import Setting

TIMEOUT_S = 150
CORPUS = ("Frame 1 at 0.5s: which circle is red? The red circle moves from the left to the right.",) * 3


def measure(setting: Setting) -> dict[str, Any]:
    from learner.model.tiny import TinySpec, create_tiny_model

    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch, "model")
        create_tiny_model(model, TinySpec(), CORPUS)
        computed = _steps(model, Path(scratch, "device.npz"), setting.on_gpu)
        exact = _steps(model, Path(scratch, "cpu.npz"), False)
    names = {"losses": ["losses"], "grad_norms": ["grad_norms"]}
    names["weights"] = [name for name in exact if name.startswith("weight ")]
    return {
        "device": str(computed["device"]),
        "losses": computed["losses"].tolist(),
        "seconds": computed["seconds"].tolist(),
        "largest_difference": {
            kind: max(float(np.abs(computed[name] - exact[name]).max()) for name in of_kind)
            for kind, of_kind in names.items()
        },
    }


def _steps(model: Path, out: Path, gpu: bool) -> dict[str, np.ndarray]:
    """What a process of its own computes, on a GPU or on the CPU."""
    environment = dict(os.environ) if gpu else os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "benchmarks.gpu.zero_rank", str(model), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return dict(np.load(out))
