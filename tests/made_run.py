"""A small run directory, written by the writers of `ser train` itself, with real videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from evaluation.heldout import record
from evidence.spaces import read
from evidence.types import FrameInfo, Group, Prompt, Sample, ScoredGroup, Trajectory, Verdict
from orchestration.config import load_config
from orchestration.loop.admission import Batch
from orchestration.loop.ledger import Ledger
from orchestration.loop.parity import Parity
from orchestration.reporting.heldout_records import records_name, write_records
from orchestration.reporting.steps import StepReport, StepTimes
from orchestration.reporting.summary import SUMMARY, RunFacts, summary, write_summary
from orchestration.run_directory import claimed
from orchestration.settings import TrainConfig
from referee.reward.ser import Ser, score
from rollout.frames.decoding import decode

ROOT = Path(__file__).parents[1]
EMPTY = np.zeros(0, np.int32)
PROMPT = Prompt(EMPTY, EMPTY, EMPTY, EMPTY)
PARITY = Parity(tokens=10, mean=1e-7, p999=1e-6, largest=1e-6)
VERDICT = Verdict(0.9, 0.8)


def claim(phrase: str, box: str = "5,5,30,30", time: float = 1.0) -> str:
    return f"<obj>{phrase}</obj><box>[{box}]</box>at<t>{time}</t>s"


def completion(*claims: str, answer: str = "top left") -> str:
    return f"<think>I see {' and '.join(claims)}</think><answer>{answer}</answer>"


def small_config(world: Path, run_dir: Path, *overrides: str) -> TrainConfig:
    data = [f"data.train={world}/train.json", f"data.heldout={world}/test.json", f"run_dir={run_dir}"]
    settings = [*data, "contract.multiple=28", "wandb=disabled", "steps=3", *overrides]
    return load_config(TrainConfig, ROOT / "configs/experiment/quickstart.yaml", settings)


def scored_group(number: int, sample: Sample, info: FrameInfo, texts: Sequence[str], rewards: Sequence[float]) -> Any:
    """A group whose claims all got the same verdict."""
    drawn = tuple(Trajectory(EMPTY, np.zeros(0, np.float32), ((number, 0, 0),), text, "stop") for text in texts)
    group = Group(number, sample, info, PROMPT, drawn, 0)
    evidence = []
    for text in texts:
        parsed = read(text, info, "resized")
        verdicts = [VERDICT] * len(Ser().claims_to_verify(parsed, sample, info))
        evidence.append(score(parsed, verdicts, info, Ser())[0])
    paid = np.array(rewards, np.float32)
    terms = {"acc": paid / 2, "format": np.ones_like(paid), "ser": paid / 4}
    return ScoredGroup(group, paid, terms, terms, {}, tuple(evidence))


def made_run(
    config: TrainConfig,
    texts: Sequence[Sequence[str]],
    monkeypatch: pytest.MonkeyPatch,
    finished: bool = True,
    heldout: bool = True,
) -> Path:
    """A run with one step for each of `texts`, the completions of its first group, all about the first training sample
    in turn."""
    run_dir = Path(config.run_dir)
    train, held = config.data.train[0].read(), config.data.heldout.read()
    monkeypatch.setattr(StepReport, "_counters", lambda _: {"ledger/trained": 8})  # the pipeline's
    pool = SimpleNamespace(take_begun=lambda: [1], take_done=lambda: [(1.0, 60)], queue=0)
    pipeline: Any = SimpleNamespace(rollout_pool=pool)
    with claimed(run_dir, config, again=False), StepReport(run_dir, config, pipeline, Ledger()) as report:
        for step, of_step in enumerate(texts, 1):
            sample = train[(step - 1) % len(train)]
            info = decode(sample.media_path, config.contract)[1]
            rewards = [float(n) for n in range(len(of_step))]
            ready: Any = SimpleNamespace(scored=scored_group(step, sample, info, of_step, rewards), asking=(0.5, 1.0))
            metrics = {"loss": 0.1 * step, "behaviour_kl": 0.01, "seconds": 1.0}
            report.step_ended(step, Batch(0, (step,), (0,)), [ready], metrics, StepTimes(0.0, 2.0, 4.0), {})
    for when, box in (("before", "5,5,20,20"), ("after", "5,5,40,40")) if heldout else ():
        records = []
        for sample in held:
            info = decode(sample.media_path, config.contract)[1]
            text = completion(claim("red square", box))
            parsed = read(text, info, "resized")
            verdicts = [Verdict(0.5, 0.5)] * len(Ser().claims_to_verify(parsed, sample, info))
            scored = record(sample, info, text, parsed, verdicts, Ser())
            records.append(replace(scored, reward=scored.reward + 0.1 * (when == "after")))
        for draw in ("greedy", "sampled"):
            write_records(run_dir / records_name(when, draw), records)
    if finished:
        facts = RunFacts({0: 16, 1: 8}, 2, 12.0, {"torch": "1"})
        write_summary(run_dir / SUMMARY, summary(facts, PARITY, [], [], Ledger()))
    return run_dir
