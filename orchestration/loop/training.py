"""What a run keeps between its steps: made from the state of a checkpoint, and collected into one."""

from __future__ import annotations

from pathlib import Path

from learner.best_checkpoint import BestCheckpoint
from orchestration.interruption import Interruption
from orchestration.loop.admission import Admission, Batch
from orchestration.loop.eval_sets import eval_sets
from orchestration.loop.evaluations import Evaluations
from orchestration.loop.group_maker import TRAINED, GroupMaker, ReadyGroup
from orchestration.loop.lineages import Lineage
from orchestration.loop.parts import Parts
from orchestration.loop.pipeline import Draw
from orchestration.loop.rejections import NOT_FINITE, RejectionWatch
from orchestration.loop.run_state import RunState, encoded
from orchestration.loop.skipped_steps import SkippedSteps
from orchestration.preflight import TrainInputs
from orchestration.reporting.steps import StepReport
from orchestration.resuming import CHECKPOINTS
from orchestration.settings import TrainConfig


class Training:
    """admission, ledger: of this lineage. maker: the groups under way and those that are ready. skipped: the steps that
    were skipped. report: the reports of the steps, to be entered. best: the best checkpoint. evaluations: those that go
    on beside it."""

    def __init__(
        self, config: TrainConfig, run_dir: Path, inputs: TrainInputs, parts: Parts, draw: Draw, begin: Lineage
    ):
        state, self.ledger = begin.state, begin.ledger
        self.config, self.inputs, self.parts, self.begin = config, inputs, parts, begin
        algorithm, packing = config.algorithm, config.learner.packing
        self.admission = Admission(config.pacing, state.version, state.step, [(a, b) for a, b in state.restarts])
        switches = algorithm.dynamic_sampling, algorithm.overlong_filtering
        self.maker = GroupMaker(
            parts.pipeline, self.admission, self.ledger, draw, packing, config.seed, config.steps, *switches
        )
        self.rejections = RejectionWatch(self.ledger, config.pacing, state.equal_before)
        self.skipped = SkippedSteps(config.learner.max_skipped, *state.skipped)
        self.report = StepReport(run_dir, config, parts.pipeline, self.ledger, state.step, state.report)
        self.maker.on_stall(self.report.stalled)
        self.best = BestCheckpoint(run_dir / CHECKPOINTS, config.checkpoint)
        self.evaluations = Evaluations(
            config, run_dir, parts.pipeline, eval_sets(config, inputs), self.report, self.best, state
        )
        parts.learner.advantages.restore(state.moments)

    async def restore(self, interruption: Interruption) -> None:
        """Go on with the groups and the evaluation of the checkpoint."""
        state = self.begin.state
        queue = [(group, self.inputs.train[group]) for group in state.queue]
        await self.maker.restore(queue, state.ready_groups(), self.config.limits.start_s)
        await self.evaluations.restore(interruption)

    def state(self) -> RunState:
        """The state of now, between two steps. The ledger forgets the groups that have ended."""
        self.ledger.settle()
        ready = {group: made.scored for group, made in self.maker.ready.items()}
        return RunState(
            step=self.admission.step,
            version=self.admission.version,
            restarts=[list(restart) for restart in self.admission.restarts],
            ledger=self.ledger.snapshot(),
            queue=self.admission.queue,
            ready=encoded(ready),
            moments=self.parts.learner.advantages.moments,
            skipped=[self.skipped.total, self.skipped.in_a_row],
            equal_before=self.rejections.equal_before,
            report=self.report.state,
            data=self.inputs.digests,
            evaluating=list(self.evaluations.under_way),
        )

    def begin_groups(self) -> None:
        """Begin groups while slots are free and the remaining steps need them: one more for each that was rejected.
        Decode the frames of the next ones ahead."""
        self.rejections.check()
        train, per_step, ledger = self.inputs.train, self.config.pacing.groups_per_step, self.ledger
        wanted = self.config.steps * per_step + ledger.counts()["rejected"]
        first = ledger.frontier
        while self.admission.free and ledger.frontier < wanted:
            self.maker.begin(ledger.frontier, train[ledger.frontier])
        if ledger.frontier == first:
            return
        ahead = range(ledger.frontier, min(ledger.frontier + per_step, wanted))
        self.parts.pipeline.prefetch(train[group] for group in ahead)

    def taken(self, batch: Batch) -> dict[int, ReadyGroup]:
        """The groups of a batch. They stay with the maker, which releases their frames if the step fails."""
        return {group: self.maker.ready[group] for group in batch.groups}

    def step_ended(self, groups: dict[int, ReadyGroup]) -> int:
        """Record that the step of these groups has ended. Returns the new version."""
        version = self.admission.step_ended()
        for group in groups:
            self.ledger.train(group, self.admission.step)
            self.maker.release(group, TRAINED)
        self.rejections.step_ended()
        return version

    def is_skipped(self, metrics: dict[str, float], groups: dict[int, ReadyGroup]) -> bool:
        """Whether the step of these groups was skipped. Such a step does not count: they are rejected and replaced.
        Raises RunFailed after too many in a row."""
        names = ", ".join(map(str, groups))
        if not self.skipped.count(metrics, f"step {self.admission.step + 1}, groups {names}"):
            return False
        for group in groups:
            self.ledger.reject(group, NOT_FINITE)
            self.maker.release(group, NOT_FINITE)
        self.admission.step_skipped()
        return True
