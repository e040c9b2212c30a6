"""What is kept of the ranks on disk, to go on from: DeepSpeed's shards, which the same number of ranks reads as they
are, and any other number in DeepSpeed's universal form, made of them once.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import deepspeed
import torch
from deepspeed.checkpoint import ds_to_universal

from evidence.errors import RunFailed
from learner.checkpoints import Saved, universal

# Of a 7B model's 84 GB, at 100 MB/s in and out three times.
CONVERT_TIMEOUT_S = 2 * 3600.0


def saved_parameters(engine: deepspeed.DeepSpeedEngine, trained: dict[str, torch.nn.Parameter]) -> dict[str, Saved]:
    """What a checkpoint of these parameters, by checkpoint name, holds of each."""
    return {name: Saved(tuple(p.ds_shape), engine.param_names[p]) for name, p in trained.items()}


def save_checkpoint(engine: deepspeed.DeepSpeedEngine, shards: Path) -> None:
    """Every rank's part of the trained weights, master weights and moments; frozen weights are in the model folder."""
    engine.save_checkpoint(str(shards.parent), tag=shards.name, save_latest=False, exclude_frozen_parameters=True)


def load_checkpoint(engine: deepspeed.DeepSpeedEngine, record: Path, saved_ranks: int) -> None:
    """The checkpoint of `record`; one that another number of ranks saved has to be converted before.

    Raises FileNotFoundError if its shards are not there."""
    elsewhere = saved_ranks != engine.dp_world_size
    shards = universal(record) if elsewhere else record.with_suffix("")
    own = [{key: value for key, value in g.items() if key != "params"} for g in engine.optimizer.param_groups]
    # DeepSpeed is told at its start only, when nobody knows yet what there is to go on from.
    engine._config.load_universal_checkpoint = elsewhere
    path, _ = engine.load_checkpoint(str(shards.parent), tag=shards.name, load_module_strict=False)
    if path is None:
        raise FileNotFoundError(f"{shards}: no checkpoint")
    # A universal checkpoint would give each group of parameters the rates of the first, and all flat parts one counter
    # of steps between them, which each of them then raises.
    for group, values in zip(engine.optimizer.param_groups, own, strict=True):
        group.update(values)
    for state in engine.optimizer.state.values():
        state["step"] = state["step"].clone()


def convert(record: Path) -> None:
    """Make the universal form of a checkpoint beside it, unless it is there already. Raises RunFailed."""
    whole = universal(record)
    if whole.is_dir():
        return
    part = whole.with_suffix(".part")
    if part.exists():
        shutil.rmtree(part)
    command = [sys.executable, "-m", ds_to_universal.__name__, "--num_extract_workers=1", "--num_merge_workers=1"]
    command += [f"--input_folder={record.with_suffix('')}", f"--output_folder={part}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=CONVERT_TIMEOUT_S)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise RunFailed(f"{record}: cannot be converted for another number of ranks: {why}")
    part.with_name("latest_universal").unlink()
    part.rename(whole)
