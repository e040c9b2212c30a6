"""`ser plan`: memory, time and staleness of a training run, before anything is started and without weights or GPUs."""

from __future__ import annotations

import json

from evidence.config_checks import require
from orchestration.planning.gpus import GPUS
from orchestration.planning.plan import Planner
from orchestration.planning.table import table
from orchestration.settings import TrainConfig


def main(config: TrainConfig, gpus: int | None, gpu: str, as_json: bool) -> None:
    """Print the plan of `config` for `gpus` GPUs of the kind `gpu`; None: as many as the config uses. Raises BadInput
    for models whose shape is not known; a config that does not fit is no error."""
    require(gpus is None or gpus >= 1, "--gpus", gpus, "1 or more")
    plan = Planner(config, gpu, GPUS[gpu]).plan(gpus)
    print(json.dumps(plan.plain(), indent=1) if as_json else table(plan))
