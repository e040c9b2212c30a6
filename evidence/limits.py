"""Limits: how long a run waits for each kind of work before what does not answer is restarted or ends the run, and how
often an engine or a referee is restarted."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from evidence.config_checks import require_above_zero, require_least

STARTED_S = 600.0  # placement and compilation, besides the reading of the weights
STATES = 6  # bytes of a checkpoint for each of bfloat16 weights: float32 weights and two moments


@dataclass(frozen=True)
class Limits:
    """In seconds, except for mib_per_s and restarts_per_hour.

    start_s: an engine, a referee or the ranks of the learner load their model, placement on the cluster included.
    generation_s: an engine draws the completions of one group.
    step_s: the ranks take one optimizer step; also their share of it in the reference policy and in fetching frames.
    publish_s: the ranks copy their weights out. update_s: an engine loads published weights.
    save_s: the ranks write a checkpoint or a model folder, or load a checkpoint.
    stall_s: no group of the run ends.
    heartbeat_s: an engine or a referee that runs, or the weights actor, answers no ping. Not counted while it starts or
    loads weights, which have limits of their own.
    mib_per_s: the slowest rate at which weights are moved. start_s, publish_s, update_s and save_s are raised to
    what those of the model take at this rate; a checkpoint has six times their bytes.
    restarts_per_hour: restarts of one engine or referee, of the weights actor or of the learner, in any hour; and
    losses of the learner in a row without another checkpoint between them.
    """

    start_s: float = 900.0
    generation_s: float = 600.0
    step_s: float = 600.0
    publish_s: float = 600.0
    update_s: float = 300.0
    save_s: float = 1800.0
    stall_s: float = 1800.0
    heartbeat_s: float = 120.0
    mib_per_s: float = 100.0
    restarts_per_hour: int = 6

    def __post_init__(self) -> None:
        require_above_zero(self, *(limit.name for limit in fields(self) if limit.name.endswith("_s")))
        require_least(self, 1, "restarts_per_hour")

    def for_weights(self, weight_bytes: int) -> Limits:
        """The limits for a model whose weights, as they are published, have so many bytes. Applied again, they stay."""
        moved_s = weight_bytes / 2**20 / self.mib_per_s
        return replace(
            self,
            start_s=max(self.start_s, STARTED_S + moved_s),
            publish_s=max(self.publish_s, moved_s),
            update_s=max(self.update_s, moved_s),
            save_s=max(self.save_s, STATES * moved_s),
        )

    @property
    def collective_s(self) -> float:
        """The limit of a collective between ranks: no rank may give up on its peers before the driver does."""
        return max(self.start_s, self.step_s, self.publish_s, self.save_s)
