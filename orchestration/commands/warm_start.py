"""`ser train CONFIG --warm-start FILE`: a run of `ser sft`, and a training that starts from its model. Both go on where
they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from evidence.errors import BadInput
from orchestration import train
from orchestration.commands import sft
from orchestration.config import load_config
from orchestration.preflight import check_train
from orchestration.resuming import Start
from orchestration.run_directory import run_directory
from orchestration.settings import TrainConfig


def main(warm_start: Path, overrides: Sequence[str], load: Callable[[str], TrainConfig]) -> None:
    """overrides: those of the training. load: its config from a folder of the policy.

    What can be known of the training is checked before the warm start begins: its config and its folder, and its data
    unless the warm start begins with a random model. Raises BadInput, RunFailed and Interrupted.
    """
    first = load_config(sft.SftConfig, warm_start, ["resume=auto"])
    config = load(first.out)
    if any(text.partition("=")[0] in ("model", "model.policy") for text in overrides):
        raise BadInput("model.policy: is the model of --warm-start; leave one of the two out")
    if first.task != "answer":
        raise BadInput(f"{warm_start}: task = {first.task}: trains a referee; --warm-start takes a policy's (answer)")
    if config.dry_run:
        raise BadInput("dry_run: takes no --warm-start; leave it out, and set model.policy to the model it begins with")
    run_directory(first.out, "out")
    Start.found(run_directory(config.run_dir), config.resume)
    if first.model is not None:
        check_train(load(first.model))
    sft.main(first)
    train.main(config)
