"""Saves and loads the state of the ranks: DeepSpeed's shards, which the same number of ranks reads directly. For any
other number of ranks they are converted once to DeepSpeed's universal form.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import deepspeed
from deepspeed.checkpoint import ds_to_universal

from evidence.errors import RunFailed
from evidence.files import whole_folder
from learner.checkpoints import Saved, universal

# Enough for the 84 GB of a 7B model, read and written three times at 100 MB/s.
CONVERT_TIMEOUT_S = 2 * 3600.0


def saved_parameters(engine: deepspeed.DeepSpeedEngine, trained: dict[str, Any]) -> dict[str, Saved]:
    """Shape and shard key of each of these sharded parameters, by checkpoint name."""
    return {name: Saved(tuple(p.ds_shape), engine.param_names[p]) for name, p in trained.items()}


def copy_out(engine: deepspeed.DeepSpeedEngine, shards: Path) -> None:
    """Copy out this rank's part of the trained weights, master weights and moments, for its BackgroundWriter to write.
    Frozen weights stay in the model folder. Nothing is written here: an error of one rank, as for a full disk, would
    leave the others in a collective."""
    engine._copy_recovery_script = lambda folder: None  # of scripts that `ser export` does not need
    engine.save_checkpoint(str(shards.parent), tag=shards.name, save_latest=False, exclude_frozen_parameters=True)


def load_checkpoint(engine: deepspeed.DeepSpeedEngine, record: Path, saved_ranks: int) -> None:
    """Load the checkpoint of `record`. One saved by another number of ranks must have been converted before (convert).

    Raises FileNotFoundError if its shards do not exist."""
    resharded = saved_ranks != engine.dp_world_size
    shards = universal(record) if resharded else record.with_suffix("")
    settings = [{key: value for key, value in g.items() if key != "params"} for g in engine.optimizer.param_groups]
    # DeepSpeed takes this from its config at start, before it is known which checkpoint will be loaded.
    engine._config.load_universal_checkpoint = resharded
    path, _ = engine.load_checkpoint(str(shards.parent), tag=shards.name, load_module_strict=False)
    if path is None:
        raise FileNotFoundError(f"{shards}: no checkpoint")
    # Loading a universal checkpoint gives all parameter groups the settings of the first, and all flat parts the same
    # step-counter tensor, which each of them would then increment.
    for group, values in zip(engine.optimizer.param_groups, settings, strict=True):
        group.update(values)
    for state in engine.optimizer.state.values():
        state["step"] = state["step"].clone()


def convert(record: Path) -> None:
    """Write the universal form of a checkpoint next to it, unless it exists already. Raises RunFailed."""
    target = universal(record)
    if target.is_dir():
        return
    with whole_folder(target) as part:
        command = [sys.executable, "-m", ds_to_universal.__name__, "--num_extract_workers=1", "--num_merge_workers=1"]
        command += [f"--input_folder={record.with_suffix('')}", f"--output_folder={part}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=CONVERT_TIMEOUT_S)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise RunFailed(f"{record}: cannot be converted for another number of ranks: {reason}")
        part.with_name("latest_universal").unlink()
