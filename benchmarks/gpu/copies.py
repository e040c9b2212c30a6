"""Rates at which weights leave the device: copies into pageable and pinned memory, and the checksum of a bucket."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.gpu.setting import Setting

GIB, SMALL_BYTES = 2**30, 2**22


def measure(setting: Setting) -> dict[str, Any]:
    from evidence.manifest import Packed

    nbytes = SMALL_BYTES if setting.small else GIB
    source = torch.ones(nbytes, dtype=torch.uint8, device=setting.device)
    pageable = torch.empty(nbytes, dtype=torch.uint8)
    targets = {"device": torch.empty_like(source), "pageable": pageable}
    if setting.on_gpu:
        targets["pinned"] = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
    calls = {f"to_{name}": lambda t=t: t.copy_(source, non_blocking=True) for name, t in targets.items()}
    calls |= {f"from_{name}": lambda t=t: source.copy_(t, non_blocking=True) for name, t in targets.items()}
    pageable.fill_(1)
    packed = Packed.of({"weights": pageable.numpy()})
    calls |= {
        "host_memory": lambda: torch.empty_like(pageable).copy_(pageable),
        "checksum": lambda: packed.bucket(0, 1),
    }
    return {"bytes": nbytes} | {
        f"{name}_gb_per_s": nbytes / setting.seconds(call) / 1e9 for name, call in calls.items()
    }
