"""The config schema of the evaluations of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from evidence.config_checks import require
from referee.reward.ser import Ser

HELDOUT = "heldout"  # the name of the held-out clips in the results


@dataclass(frozen=True)
class BenchmarkConfig:
    """A benchmark that is asked while training goes on (docs/evaluation.md).

    name: as in `ser eval`. data: its annotation, a file or a folder. videos: the folder of its videos; null is that of
    data. limit: the number of questions, from the first; null is all.
    protocol: strict or official; null is the default of `ser eval`, the only choice for V-STaR.
    set: its name in the results; null is `name`.
    """

    name: str = MISSING
    data: str = MISSING
    videos: str | None = None
    limit: int | None = None
    protocol: str | None = None
    set: str | None = None

    def __post_init__(self) -> None:
        require(self.limit is None or self.limit >= 1, "limit", self.limit, "1 or more, or null for all questions")

    @property
    def set_name(self) -> str:
        return self.set or self.name


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation: the held-out comparison before and after training, greedy and at the training temperature; and, with
    `every`, greedy evaluations while training goes on.

    every: after so many steps the held-out clips and the benchmarks are evaluated; null never does so.
    samples: the number of clips, the first of data.heldout; 0 skips the comparison. null takes all that the file holds,
    up to 512, which give an accuracy to within .04 (95%).
    ser: the SER options that score the evidence, independent of the training reward, so that runs are comparable.
    benchmarks: asked beside the held-out clips."""

    samples: int | None = None
    ser: Ser = field(default_factory=Ser)
    every: int | None = None
    benchmarks: list[BenchmarkConfig] = field(default_factory=list)

    def __post_init__(self) -> None:
        require(self.samples is None or self.samples >= 0, "samples", self.samples, "0 or more, or null for up to 512")
        require(self.every is None or self.every >= 1, "every", self.every, "1 or more, or null")
        require(
            self.every is None or self.samples != 0 or bool(self.benchmarks),
            "every",
            self.every,
            "null with samples = 0 and no benchmarks: nothing would be evaluated",
        )
        require(
            self.every is not None or not self.benchmarks,
            "benchmarks",
            ", ".join(benchmark.set_name for benchmark in self.benchmarks),
            "empty without `every`: they are asked while training goes on",
        )
        names = [HELDOUT, *(benchmark.set_name for benchmark in self.benchmarks)]
        twice = next((name for name in names if names.count(name) > 1), None)
        require(twice is None, "benchmarks", twice, "different names; set `set` of one of them")
