"""`ser train CONFIG --warm-start FILE`: a run of `ser sft`, and a training that starts from its model. Both go on where
they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from orchestration import train
from orchestration.commands import sft
from orchestration.config import load_config
from orchestration.preflight import check_train
from orchestration.run_directory import CONFIG
from orchestration.settings import TrainConfig


def main(warm_start: Path, load: Callable[[str], TrainConfig]) -> None:
    """load: the config of the training from a folder of the policy. What can be known of it is checked before the warm
    start begins. Raises BadInput, RunFailed and Interrupted."""
    first = load_config(sft.SftConfig, warm_start, ["resume=auto"])
    config = load(first.out)
    if _is_done(first):
        print(f"{first.out}: is there; training starts from it", flush=True)
    else:
        if first.model is not None:
            check_train(load(first.model))
        sft.main(first)
    train.main(config)


def _is_done(config: sft.SftConfig) -> bool:
    """Whether this run has written its model, which appears when it is whole."""
    file = Path(config.run_dir) / CONFIG
    return (
        (Path(config.out) / "config.json").is_file()
        and file.is_file()
        and replace(load_config(sft.SftConfig, file), resume=config.resume) == config
    )
