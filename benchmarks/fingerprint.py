"""A fingerprint of training: what a seeded run at staleness 0 trains on, what it loses and where its weights end.

    python -m benchmarks.fingerprint [--steps 10]

Prints one JSON object: per step a digest of the batch (tokens, log-probs, rewards) and the exact loss and gradient
norm, and a digest of the final weights. Two runs of the same code on the same machine print the same object, bit for
bit, so a change that must not change training can be held against the commit before it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from orchestration import train
from orchestration.config import load_config
from orchestration.loop import parts
from orchestration.loop.group_maker import ReadyGroup
from orchestration.loop.learner_step import Learner
from orchestration.settings import TrainConfig

OVERRIDES = (
    "pacing.staleness=0",
    "eval.samples=0",
    "wandb=disabled",
    "learner.export_dtype=float32",
    "learner.schedule={lr: 1.5e-4, warmup: 3}",
)


def batch_digest(groups: list[ReadyGroup]) -> str:
    """Digest of everything in a batch that the learner trains on, in its order."""
    digest = hashlib.blake2b(digest_size=16)
    for ready in groups:
        scored = ready.scored
        digest.update(f"{scored.group.sample.id} {scored.group.frames.key}".encode())
        arrays = [array for t in scored.group.trajectories for array in (t.token_ids, t.logprobs)]
        for array in (scored.group.prompt.token_ids, *arrays, scored.rewards):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class RecordingLearner(Learner):
    """The learner of a run, which also records what it is given and what it reports."""

    steps: ClassVar[list[dict[str, Any]]] = []  # a process holds one run

    async def train(self, groups: list[ReadyGroup], *arguments: Any) -> dict[str, float]:
        metrics = await super().train(groups, *arguments)
        self.steps.append({"batch": batch_digest(groups), "loss": metrics["loss"], "grad_norm": metrics["grad_norm"]})
        return metrics


def fingerprint(steps: int) -> dict[str, Any]:
    parts.Learner = RecordingLearner  # type: ignore[misc]
    with tempfile.TemporaryDirectory(prefix="ser") as folder, redirect_stdout(sys.stderr):
        overrides = (*OVERRIDES, f"steps={steps}", f"run_dir={folder}/run")
        train.main(load_config(TrainConfig, "configs/experiment/quickstart.yaml", overrides))
        weights = hashlib.blake2b(Path(folder, "run/model/model.safetensors").read_bytes(), digest_size=16)
    return {"steps": RecordingLearner.steps, "weights": weights.hexdigest()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    print(json.dumps(fingerprint(parser.parse_args().steps), indent=1))
