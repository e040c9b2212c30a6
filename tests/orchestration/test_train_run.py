"""Complete, small runs of `ser train` with real engines, referee and ZeRO-3 ranks, as in the quickstart."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestration.reporting.metric_table import metric_of
from rollout.dataset.shapes import make_shapes

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
VIDEOS = ROOT.parent / "shared/videos"
SMALL = ("pacing.groups_per_step=2", "sampling.group_size=4", "wandb=disabled", "cluster.object_store_gib=0.5")


def train(run_dir: Path, train: Path, heldout: Path, *more: str) -> subprocess.CompletedProcess[str]:
    paths = f"run_dir={run_dir}", f"data.train={train}", f"data.heldout={heldout}"
    return ser("train", "configs/experiment/quickstart.yaml", *paths, *SMALL, *more)


def ser(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestration", *arguments]
    env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    return subprocess.run(command, cwd=ROOT, timeout=400, env=env, capture_output=True, text=True)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "shapes"
    make_shapes(folder, train=12, val=0, test=6, questions=1, workers=1)
    return folder


def test_an_asynchronous_run_uses_staleness_within_its_bound_and_reports(world: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    benchmark = f"eval.benchmarks=[{{name: data, data: {world}/test.json, limit: 2, set: again}}]"
    evaluation = ("eval.samples=6", "eval.every=2", benchmark, "checkpoint.best=heldout/reward", "checkpoint.keep=1")
    evaluation = (*evaluation, "wandb=offline")
    done = train(
        run_dir, world / "train.json", world / "test.json", "steps=4", "cluster.rollout_engines=2", *evaluation
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert_evaluated(run_dir)
    assert_reported(run_dir)
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["trained_groups"] == 8
    assert 0 < summary["staleness_mean"] <= summary["staleness_max"] <= summary["staleness_bound"]
    assert summary["outcomes"]["trained"] == 8
    assert sum(summary["outcomes"][s] for s in ("pending", "generating", "scoring", "ready")) == 0
    assert set(summary["versions"]) == {"ray", "vllm", "deepspeed", "torch", "transformers"}
    assert str(run_dir) in done.stdout
    assert summary["bound"] in done.stdout
    assert "-bound: the learner waited in" in summary["bound"]
    metrics = lines_of(run_dir / "metrics.jsonl")
    assert [m["step"] for m in metrics] == [1, 2, 3, 4]
    # Neither engine takes all groups, whichever is updated first.
    assert sum(m["engines/groups_min"] for m in metrics) >= 3
    # The first step trains tokens of its own version, so their ratio is 1. Later batches are one version old.
    assert metrics[0]["learner/ratio"] == pytest.approx(1, abs=1e-5)
    assert metrics[-1]["learner/behaviour_kl"] > 1e-9
    samples = lines_of(run_dir / "samples.jsonl")
    assert any(sample["claims"] for sample in samples), "the embedded policy writes claims"
    assert (run_dir / "model/model.safetensors").is_file()
    # `ser score` with the same referee reproduces the recorded rewards.
    held_out = run_dir / "heldout_after_greedy.jsonl"
    done = ser(
        *("score", "--reward", "ser", "--samples", world / "test.json", "--completions", held_out),
        *("--referee", "assets/referee", "--config", "configs/world/shapes.yaml"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    again = [json.loads(line)["terms"]["ser"] for line in done.stdout.splitlines()]
    assert again == pytest.approx([line["reward"] for line in lines_of(held_out)], abs=1e-5)


def assert_reported(run_dir: Path) -> None:
    """Require what wandb and the alerts need of a run in each line of its metrics, and what wandb shows of it."""
    lines = lines_of(run_dir / "metrics.jsonl")
    assert {name for line in lines for name in line if metric_of(name) is None} == set()
    for line in lines:
        shares = [value for name, value in line.items() if name.startswith("learner/advantage_share/")]
        assert not shares or sum(shares) == pytest.approx(1, abs=1e-3)
        tokens = round(line["rollout/tokens"] * 8)
        assert sum(line["histogram/length"]["counts"]) == 8
        assert sum(line["histogram/ratio"]["counts"]) == tokens
        assert line["tokens/trained"] >= tokens
        assert 0 < line["learner/effective_share"] <= 1 + 1e-5
        assert min(line[f"learner/{name}"] for name in ("tokens_per_s", "tflops", "host_gib")) > 0
        assert line["weights/publish_s"] > 0
        assert not any(value for name, value in line.items() if name.startswith("alert/"))
    assert sum(line[f"engines/{n}/tokens_per_s"] for line in lines for n in range(2)) > 0
    assert lines[-1]["weights/update_s"] > 0
    (start,) = lines_of(run_dir / "starts.jsonl")
    assert start["step"] == 0
    assert list(run_dir.glob("wandb/offline-run-*/files/media/images/samples/frames*.jpg"))
    assert list(run_dir.glob("wandb/offline-run-*/files/media/table/samples/table*.table.json"))


def assert_evaluated(run_dir: Path) -> None:
    """Require the evaluations of steps 2 and 4, of which the second may have been given up, and the best checkpoint."""
    lines = lines_of(run_dir / "eval.jsonl")
    by_step = {step: {line["set"]: line for line in lines if line["step"] == step} for step in (2, 4)}
    assert {name: (line["version"], line["n"]) for name, line in by_step[2].items()} == {
        "heldout": (2, 6),
        "again": (2, 2),
    }
    heldout = by_step[2]["heldout"]
    low, high = heldout["ci95"]["reward"]
    assert low <= heldout["reward"] <= high
    assert len(lines_of(run_dir / "evaluations/step-000002/heldout.jsonl")) == 6
    assert 0 <= by_step[2]["again"]["acc"] <= 1
    assert by_step[4].keys() == {"heldout", "again"}
    after = [line["reward"] for line in lines_of(run_dir / "heldout_after_greedy.jsonl")]
    if "not_measured" not in by_step[4]["heldout"]:
        assert by_step[4]["heldout"]["reward"] == pytest.approx(np.mean(after), abs=1e-4), "of the same weights"
    measured = {step: sets["heldout"].get("reward", -1.0) for step, sets in by_step.items()}
    best = json.loads((run_dir / "checkpoints/best.json").read_text())
    assert best["step"] == max(measured, key=lambda step: measured[step])
    assert (run_dir / f"checkpoints/step-{best['step']:06d}.json").is_file()
    assert json.loads((run_dir / "summary.json").read_text())["best_checkpoint"] == best
    assert {line["time/eval_s"] for line in lines_of(run_dir / "metrics.jsonl")} == {0}, "the learner does not wait"


def test_training_with_a_reward_that_compares_with_shuffled_frames(world: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    # The length bonus is for long completions; the embedded policy writes short ones.
    length = ("reward.terms.length.options.low=1", "reward.terms.length.options.high=96")
    # Also a different algorithm, and an adapter with a KL penalty against its base.
    # The entropy bonus moves the policy even if all rewards are equal.
    algorithm = ("algorithm={recipe: aipo, kl: {coefficient: 0.1}, entropy: 0.01}", "learner.reference=lora_off")
    adapter = ("learner.policy.lora={rank: 4}", "learner.schedule={lr: 0.01, warmup: 0}")
    arguments = ("steps=2", "eval.samples=0", "reward=video_r1", *length, *algorithm, *adapter)
    done = train(run_dir, world / "train.json", world / "test.json", *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    metrics, after = lines_of(run_dir / "metrics.jsonl")
    assert metrics["learner/kl"] == pytest.approx(0, abs=1e-6), "an adapter starts equal to its base"
    assert after["learner/kl"] > 1e-4
    assert metrics["reward/acc"] > 0
    assert metrics["reward/t_grpo"] > 0
    assert metrics["reward/length"] > 0
    assert metrics["learner/truncated"] == 0
    assert metrics["learner/weight"] == pytest.approx(1, abs=1e-5)
    (task,) = {json.loads((world / "train.json").read_text())[0]["task"]}
    assert metrics[f"reward/{task}/acc"] == metrics["reward/acc"]
    assert not any(name.startswith("evidence/left out") for name in metrics)
    assert len(lines_of(run_dir / "samples.jsonl")) == 2 * 4, "completions drawn on shuffled frames are not trained on"


def test_with_staleness_0_every_batch_has_age_0_and_equal_seeds_give_equal_runs(world: Path, tmp_path: Path) -> None:
    # With native video, which the other runs do not use; the parity check would stop a run whose prompts differ.
    runs = []
    for name in ("a", "b"):
        arguments = ("steps=3", "eval.samples=0", "pacing.staleness=0", "template.native_video=true")
        penalty = ("algorithm.kl={coefficient: 0.01, estimator: k2, where: reward}", "learner.reference=frozen")
        done = train(tmp_path / name, world / "train.json", world / "test.json", *arguments, *penalty)
        assert done.returncode == 0, done.stderr[-3000:]
        runs.append((lines_of(tmp_path / name / "metrics.jsonl"), lines_of(tmp_path / name / "samples.jsonl")))
    (metrics, samples), (_, again) = runs
    assert all(m["staleness/max"] == 0 and m["rollout/versions"] == 1 for m in metrics)
    assert [m["learner/ratio"] for m in metrics] == pytest.approx([1, 1, 1], abs=1e-5)
    assert metrics[0]["learner/kl_taken_off"] < 1e-8 < metrics[2]["learner/kl_taken_off"]
    assert [s["text"] for s in samples] == [s["text"] for s in again]
    assert [s["reward"] for s in samples] == pytest.approx([s["reward"] for s in again], abs=1e-5)


QUESTIONS = (
    ("nasa_13013.mp4", "What is shown at 2.0 s?", "a spacecraft"),
    ("nasa_13013.mp4", "Does the picture change between 1.0 s and 12.0 s?", "yes"),
    ("h265_video.mp4", "What colour is most of the frame at 0.0 s?", "grey"),
    ("rotated_90.mov", "Is the video upright?", "yes"),
    ("corrupted.mp4", "What is in the middle?", "nothing"),
)


@pytest.mark.skipif(not VIDEOS.is_dir(), reason=f"the real footage in {VIDEOS} is not on this machine")
def test_training_on_real_footage_counts_a_damaged_file(tmp_path: Path) -> None:
    folder = tmp_path / "footage"
    folder.mkdir()
    rows = []
    for n, (video, question, answer) in enumerate(QUESTIONS):
        (folder / video).write_bytes((VIDEOS / video).read_bytes())
        row = {"id": f"q{n}", "source": "hand", "task": "general video QA free-form"}
        rows.append(row | {"question": question, "answer": answer, "video_path": video})
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = folder / "questions.jsonl"
    done = train(tmp_path / "run", data, data, "steps=4", "eval.samples=0")
    assert done.returncode == 0, done.stderr[-3000:]
    last = lines_of(tmp_path / "run/metrics.jsonl")[-1]
    assert last["ledger/trained"] == 8
    assert last["rejected/unreadable media"] >= 1
    assert np.isfinite([m["reward"] for m in lines_of(tmp_path / "run/metrics.jsonl")]).all()


def test_steps_that_are_not_finite_are_skipped_and_too_many_end_the_run(world: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    # The first step drives the activations out of range; with a publication every tenth step, engines never load it.
    # The entropy bonus makes its gradient non-zero even if all rewards are equal.
    far = ("learner.schedule={lr: 1e9, warmup: 0}", "algorithm.entropy=0.01")
    broken = (*far, "pacing.publish_every=10", "learner.max_skipped=2")
    done = train(run_dir, world / "train.json", world / "test.json", "steps=6", "eval.samples=0", *broken)
    assert done.returncode == 1
    *_, skipped, last = done.stderr.splitlines()
    assert re.search(r"step 2, groups \d+, \d+: loss or gradient is not finite .*; the step is skipped$", skipped)
    assert re.search(r"^ser: step 2, groups \d+, \d+: loss or gradient is not finite .*, in 2 steps in a row", last)
    first, second = (set(re.search(r"groups (\d+), (\d+):", line).groups()) for line in (skipped, last))
    assert not first & second, "skipped groups are replaced by new ones"
    assert [m["step"] for m in lines_of(run_dir / "metrics.jsonl")] == [1]
