"""The driver's view of the learner ranks: every call goes to all ranks, every wait has a timeout.

Guarantees: if a rank dies or hangs, the call fails with one line that names it and what it was doing, so no rank waits
in a collective forever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import ray

from evidence.digests import model_digest
from evidence.supervision import actor_class
from learner.actor import LearnerRank
from learner.checkpoints import Record, require_same_model, require_whole
from learner.packing.step import MicroLayout
from learner.settings import RankConfig
from learner.zero.background_writer import Written
from learner.zero.checkpoint import convert
from orchestration.supervision.placement import Placement
from orchestration.supervision.waiting import dead, results


class LearnerGang:
    """Starts `world` ranks with `gpus` GPUs each, on as few nodes as hold them, and drives them in lockstep."""

    def __init__(self, config: RankConfig, world: int, gpus: float = 0.0, placed: Callable[[], object] | None = None):
        """Returns when the ranks have loaded the model. `placed` is called as soon as they have their GPUs."""
        self.config, self.limits = config, config.limits
        self.placement = Placement(world, gpus, self.limits.start_s, "the learner's ranks")
        if placed is not None:
            placed()
        rank_class = actor_class(LearnerRank)
        self.ranks = [rank_class.options(**self.placement.options(r)).remote(config, r, world) for r in range(world)]
        try:
            ((host, port),) = self._results([self.ranks[0].listen.remote()], "starting", "start_s")
            self.trained_parameters = self._all("join", "loading the model", "start_s", host, port)[0]
            (self.device,) = self._results([self.ranks[0].device.remote()], "naming its GPU", "start_s")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill the ranks and release their placement."""
        for rank in self.ranks:
            ray.kill(rank)
        self.placement.release()

    def _all(self, method: str, doing: str, limit: str, *args: Any) -> list[Any]:
        return self._results([getattr(rank, method).remote(*args) for rank in self.ranks], doing, limit)

    def _results(self, calls: Sequence[ray.ObjectRef], doing: str, limit: str) -> list[Any]:
        """What the ranks return, calls[r] of rank r. `limit`: a key of Limits. Raises ActorLost."""
        actors = dict(islice(self._named.items(), len(calls)))
        return results(calls, actors, doing, getattr(self.limits, limit), limit)

    def dead(self) -> list[str]:
        """The names of the ranks that have died. The others may be busy."""
        return list(dead(self._named))

    @property
    def _named(self) -> dict[str, Any]:
        return {f"learner rank {number}": rank for number, rank in enumerate(self.ranks)}

    def fetch(self, micro_batches: Sequence[Sequence[MicroLayout]]) -> None:
        """Copy to each rank the frames of its part of the next step. The rank keeps them until that step has ended, so
        losing another node cannot stop the step. Raises Ray's ObjectLostError; the step must not begin then."""
        parts = [[image for micro in part for image in micro.images] for part in micro_batches]
        calls = [rank.fetch.remote(part) for rank, part in zip(self.ranks, parts)]
        self._results(calls, "fetching frames", "step_s")

    def drop_frames(self) -> None:
        """Make the ranks drop the fetched frames when no step follows, so releasing their leases frees the bytes."""
        self.fetch([()] * len(self.ranks))

    def train_step(self, micro_batches: Sequence[Any], learning_rate: float) -> dict[str, Any]:
        """Take one optimizer step and return its metrics, summed over ranks. `micro_batches[r]`: those of rank r, or a
        ref to them."""
        calls = [rank.train_step.remote(part, learning_rate) for rank, part in zip(self.ranks, micro_batches)]
        parts = self._results(calls, "taking an optimizer step", "step_s")
        return {name: sum(part.get(name, 0.0) for part in parts) for name in dict.fromkeys(chain(*parts))}

    def logprobs(self, micro_batches: Sequence[Any]) -> list[list[Any]]:
        """Log-probs, float32 [N], of each rank's micro-batches under the current weights."""
        calls = [rank.logprobs.remote(part) for rank, part in zip(self.ranks, micro_batches)]
        return self._results(calls, "computing log-probs", "step_s")

    def reference_logprobs(self, micro_batches: Sequence[Any]) -> list[list[Any]]:
        """Log-probs as from `logprobs`, but under the base model: the trained adapter is switched off."""
        calls = [rank.reference_logprobs.remote(part) for rank, part in zip(self.ranks, micro_batches)]
        return self._results(calls, "computing log-probs of the reference policy", "step_s")

    def save(self, shards: Path) -> None:
        """Make every rank copy out its part of a checkpoint and begin to write it into the folder `shards`."""
        self._all("save", "copying out a checkpoint", "save_s", str(shards))

    def saved(self, timeout_s: float) -> list[Written] | None:
        """What each rank wrote since `save`, or None if some rank is still writing after `timeout_s` seconds. The ranks
        answer between steps."""
        written = self._all("saved", "writing a checkpoint", "save_s", timeout_s)
        return None if None in written else written

    def load(self, record: Path) -> None:
        """Load a checkpoint, saved by any number of ranks. Raises BadInput, naming the fault, if it is of another model
        or not whole."""
        saved = Record.read(record)
        require_whole(record, saved)
        require_same_model(record, saved, self.record({}, {}))
        if saved.ranks != len(self.ranks):
            print(f"{record}: saved by {saved.ranks} ranks, converting it to {len(self.ranks)} ranks", flush=True)
            convert(record)
        self._all("load", "loading a checkpoint", "save_s", str(record), saved.ranks)

    @cached_property
    def base(self) -> str:
        """Digest of the model folder that training started from."""
        return model_digest(self.config.model)

    def record(self, state: Mapping[str, Any], files: Mapping[str, int]) -> Record:
        """The record of a checkpoint of this gang: its arguments, and facts about the model."""
        config = self.config
        (parameters,) = self._results([self.ranks[0].parameters.remote()], "describing its parameters", "step_s")
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
            state=state,
            files=files,
        )

    def export(self, folder: Path, dtype: str) -> None:
        """Write the weights as a Hugging Face model folder."""
        self._all("export", "writing the model", "save_s", str(folder), dtype)
