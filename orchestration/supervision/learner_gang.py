"""The gang of learner ranks as its driver sees it: every call goes to all ranks, every wait has an end.

Guarantees: a rank that dies or hangs ends the call with an error naming it, so that no rank is left waiting in a
collective for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import ray

from evidence.digests import model_digest
from learner.actor import LearnerRank
from learner.checkpoints import (
    Record,
    checkpoints,
    prune_checkpoints,
    remove_checkpoint,
    require_same_model,
    require_whole,
)
from learner.packing.step import MicroLayout
from learner.settings import RankConfig
from learner.zero.checkpoint import convert
from orchestration.supervision.placement import Placement

KEPT_CHECKPOINTS = 2


class LearnerGang:
    """Starts `world` ranks on the cluster, `gpus` each, on as few nodes as hold them, and drives them in step."""

    def __init__(self, config: RankConfig, world: int, gpus: float = 0.0):
        self.config, self.timeout_s = config, config.timeout_s
        self.room = Placement(world, gpus, self.timeout_s, "the learner's ranks")
        self.ranks = [LearnerRank.options(**self.room.options(r)).remote(config, r, world) for r in range(world)]
        try:
            address, port = ray.get(self.ranks[0].address.remote(), timeout=self.timeout_s)
            self.trained_parameters = self._all("join", address, port)[0]
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the ranks and give back what they had of the cluster."""
        for rank in self.ranks:
            ray.kill(rank)
        self.room.release()

    def _all(self, method: str, *args: Any) -> list[Any]:
        return ray.get([getattr(rank, method).remote(*args) for rank in self.ranks], timeout=self.timeout_s)

    def fetch(self, micro_batches: Sequence[Sequence[MicroLayout]]) -> None:
        """Bring to each rank the frames of its part of the next step; it keeps them until that has ended, so that no
        loss of another node can stop it there. Raises ray's ObjectLostError: a step must not begin then."""
        parts = [[image for micro in part for image in micro.images] for part in micro_batches]
        ray.get([rank.fetch.remote(part) for rank, part in zip(self.ranks, parts)], timeout=self.timeout_s)

    def let_go(self) -> None:
        """Have no rank keep what it fetched, where no step follows: its bytes are free once its lease is released."""
        self.fetch([()] * len(self.ranks))

    def train_step(self, micro_batches: Sequence[Any], learning_rate: float) -> dict[str, float]:
        """One optimizer step; `micro_batches[r]` are those of rank r, or a ref to them. Returns the whole step's
        metrics, summed over ranks."""
        calls = [rank.train_step.remote(part, learning_rate) for rank, part in zip(self.ranks, micro_batches)]
        parts = ray.get(calls, timeout=self.timeout_s)
        return {name: sum(part.get(name, 0.0) for part in parts) for name in dict.fromkeys(chain(*parts))}

    def logprobs(self, micro_batches: Sequence[Any]) -> list[list[Any]]:
        """Log-probs of each rank's micro-batches under the current weights."""
        calls = [rank.logprobs.remote(part) for rank, part in zip(self.ranks, micro_batches)]
        return ray.get(calls, timeout=self.timeout_s)

    def reference_logprobs(self, micro_batches: Sequence[Any]) -> list[list[Any]]:
        """The same without the adapter that is trained: of the base model."""
        calls = [rank.reference_logprobs.remote(part) for rank, part in zip(self.ranks, micro_batches)]
        return ray.get(calls, timeout=self.timeout_s)

    def save(self, folder: Path, step: int, state: dict[str, Any]) -> None:
        """Checkpoint of this step, whole when its record is there; older ones than the newest two go."""
        record = folder / f"step-{step:06d}.json"
        remove_checkpoint(record)  # one of an abandoned stretch, perhaps of more ranks than there are now
        folder.mkdir(parents=True, exist_ok=True)
        self._all("save", str(record.with_suffix("")))
        replace(self._record(), state={"step": step, **state}).write(record)
        prune_checkpoints(folder, KEPT_CHECKPOINTS)

    def resume(self, folder: Path) -> dict[str, Any] | None:
        """Load the newest whole checkpoint, of any number of ranks, and return the state saved with it; None if there
        is none. Raises BadInput, naming what differs, if it is of another model."""
        records = checkpoints(folder)
        if not records:
            return None
        newest = records[-1]
        saved = Record.read(newest)
        require_whole(newest, saved)
        require_same_model(newest, saved, self._record())
        if saved.ranks != len(self.ranks):
            print(f"{newest}: saved by {saved.ranks} ranks, converting it for {len(self.ranks)}", flush=True)
            convert(newest)
        self._all("load", str(newest), saved.ranks)
        return dict(saved.state)

    @cached_property
    def base(self) -> str:
        """Digest of the folder that training began from."""
        return model_digest(self.config.model)

    def _record(self) -> Record:
        """What is trained here."""
        config = self.config
        parameters = ray.get(self.ranks[0].parameters.remote(), timeout=self.timeout_s)
        model = str(Path(config.model).absolute())
        lora = config.policy.lora
        return Record(
            model=model,
            base=self.base,
            ranks=len(self.ranks),
            precision=config.zero.precision,
            average=config.zero.ema is not None,
            lora_scale=lora.scale if lora else None,
            parameters=parameters,
            state={},
        )

    def export(self, folder: Path, dtype: str) -> None:
        """Write the weights as a Hugging Face folder."""
        self._all("export", str(folder), dtype)
