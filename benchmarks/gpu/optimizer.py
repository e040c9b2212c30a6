"""AdamW over one of the learner's sub-groups, on the device and on the host, as an offloaded optimizer runs there.

`gb_per_s` counts what one update must read and write: weight, gradient and both moments in float32, seven times 4 bytes
for each element.
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.gpu.setting import Setting
from learner.settings import SUB_GROUP

SMALL_ELEMENTS = 100_000
BYTES = 7 * 4


def measure(setting: Setting) -> dict[str, Any]:
    elements = SMALL_ELEMENTS if setting.small else SUB_GROUP
    places = {"device": setting.device, "host": torch.device("cpu")} if setting.on_gpu else {"host": setting.device}
    return {"elements": elements, "host_threads": torch.get_num_threads()} | {
        f"{place}_{kind}": _update(setting, device, elements, kind == "fused")
        for place, device in places.items()
        for kind in ("fused", "plain")
    }


def _update(setting: Setting, device: torch.device, elements: int, fused: bool) -> dict[str, Any]:
    weight = torch.nn.Parameter(torch.zeros(elements, device=device))
    weight.grad = torch.ones_like(weight)
    optimizer = torch.optim.AdamW([weight], lr=1e-6, fused=fused)
    optimizer.step()  # makes the moments
    peak = setting.peak_gib(optimizer.step) if device.type == "cuda" else None
    seconds = setting.seconds(optimizer.step)
    return {"seconds": seconds, "gb_per_s": elements * BYTES / seconds / 1e9, "temporaries_gib": peak}
