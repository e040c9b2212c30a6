"""What is evaluated while training goes on: the held-out clips, and benchmarks. One greedy completion each."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from evaluation import heldout, measures
from evaluation.completions import frame_values
from evidence.plain import dumps
from evidence.types import Prompt, Sample
from orchestration.benchmark_questions import Questions, values_of
from orchestration.eval_settings import HELDOUT
from orchestration.loop.clips import Complete, each_clip
from orchestration.loop.heldout import evaluate
from orchestration.loop.pipeline import Draw, Pipeline
from orchestration.preflight import TrainInputs
from orchestration.reporting.heldout_records import record_lines
from orchestration.settings import TrainConfig
from referee.reward.ser import Ser
from rollout.frames.store import Lease


@dataclass(frozen=True)
class Results:
    """numbers: the metrics, their intervals under `ci95`, and counts, as in a line of eval.jsonl. records: one JSON
    line for each completion."""

    numbers: Mapping[str, Any]
    records: Sequence[str]


class EvalSet(Protocol):
    """name: as in the results."""

    @property
    def name(self) -> str: ...

    @property
    def samples(self) -> Sequence[Sample]: ...

    async def measure(self, pipeline: Pipeline, complete: Complete, at_once: int) -> Results:
        """Ask everything, at most `at_once` at a time. Raises BadInput if no clip can be evaluated."""


@dataclass(frozen=True)
class HeldoutSet:
    """The held-out clips, judged by `ser`."""

    samples: Sequence[Sample]
    ser: Ser
    draw: Draw
    seed: int
    name: str = HELDOUT

    async def measure(self, pipeline: Pipeline, complete: Complete, at_once: int) -> Results:
        records = await evaluate(pipeline, self.ser, self.samples, self.draw, self.seed, complete, at_once)
        return await asyncio.to_thread(self._results, records)

    def _results(self, records: Sequence[heldout.ClipRecord]) -> Results:
        media = {sample.id: sample.media_path for sample in self.samples}
        columns, means = heldout.table(records)
        values = measures.nested(measures.values(columns, means))
        intervals = measures.intervals([media[record.clip] for record in records], columns, means)
        return Results({**values, "ci95": measures.nested(intervals), "n": len(records)}, record_lines(records))


@dataclass(frozen=True)
class BenchmarkSet:
    """The questions of a benchmark, scored by rules: where a judge would be asked, there is no reply."""

    questions: Questions
    draw: Draw
    seed: int

    @property
    def name(self) -> str:
        return self.questions.config.set_name

    @property
    def samples(self) -> Sequence[Sample]:
        return self.questions.samples

    async def measure(self, pipeline: Pipeline, complete: Complete, at_once: int) -> Results:
        async def attempt(number: int, sample: Sample, lease: Lease, prompt: Prompt) -> dict[str, Any]:
            seed = self.seed * 1_000_003 + number
            trajectory = await complete(prompt, lease.frames, self.draw.temperature, self.draw.max_tokens, seed)
            ask = self.questions.asks[number]
            return {"id": ask.id, "text": trajectory.text, **frame_values(lease.info)}

        answered = [line for line in await each_clip(pipeline, self.samples, attempt, at_once) if line is not None]
        return await asyncio.to_thread(self._results, answered)

    def _results(self, answered: Sequence[Mapping[str, Any]]) -> Results:
        report = self.questions.report({line["id"]: line for line in answered})
        numbers = {**values_of(report), "ci95": values_of(report, "ci95"), "n": report["n"]}
        return Results(numbers | {"counts": report["counts"]}, [dumps(line, ensure_ascii=False) for line in answered])


def eval_sets(config: TrainConfig, inputs: TrainInputs) -> list[EvalSet]:
    """The sets that the config names."""
    if config.eval.every is None:
        return []
    draw = Draw(1, 0.0, config.sampling.max_tokens)
    benchmarks: list[EvalSet] = [BenchmarkSet(questions, draw, config.seed) for questions in inputs.benchmarks]
    clips: list[EvalSet] = [HeldoutSet(inputs.heldout, config.eval.ser, draw, config.seed)] if inputs.heldout else []
    return [*clips, *benchmarks]
