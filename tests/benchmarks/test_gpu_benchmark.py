"""`python -m benchmarks.gpu`: each part runs on the CPU by the code that a GPU would run, and needs few packages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.flops import language_flops
from benchmarks.gpu import __main__ as command
from benchmarks.gpu.part import measurement
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.workload import Work, make_policy, make_row, text_config

ROOT = Path(__file__).parents[2]
SMALL = Setting(torch.device("cpu"), small=True)
# Python as it is where some packages are not installed.
WITHOUT = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
hidden = lambda name, *rest: None if name.partition(".")[0] in PACKAGES else find(name, *rest)
PathFinder.find_spec = staticmethod(hidden)
"""
MEASURED = """
import torch
import benchmarks.gpu.__main__
from benchmarks.gpu.part import PARTS, measurement
from benchmarks.gpu.setting import Setting
for part in PARTS:
    measurement(part)
measurement("mfu_7b")(Setting(torch.device("cpu"), small=True))
"""


@pytest.mark.parametrize(
    ("packages", "code"),
    [
        ("ray vllm peft omegaconf wandb av cv2 decord torchvision accelerate xxhash", MEASURED),
        ("ray vllm peft omegaconf wandb av cv2 decord", "import benchmarks.gpu.zero_rank"),
    ],
)
def test_few_packages_are_needed(packages: str, code: str) -> None:
    code = WITHOUT.replace("PACKAGES", repr(set(packages.split()))) + code
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_without_a_gpu_it_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    assert command.main() == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert "--device cpu --small" in printed.err
    monkeypatch.setattr(sys, "argv", ["gpu", "heads"])
    assert command.main() == 2
    assert "heads: no such part" in capsys.readouterr().err


def test_parts_go_on_after_one_that_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each in a process of its own, here with the part's module replaced by a program."""
    programs = {"head": "import sys; print('a\\nCUDA error: misaligned address', file=sys.stderr); sys.exit(1)"}
    programs |= {"copies": "print('{\"rate\": 1}')", "layers": "import os; os.abort()"}
    run = subprocess.run

    def replaced(arguments: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        return run([sys.executable, "-c", programs[arguments[3]]], **options)

    monkeypatch.setattr(subprocess, "run", replaced)
    monkeypatch.setattr(sys, "argv", ["gpu", "head", "layers", "copies", "--device", "cpu", "--small"])
    assert command.main() == 1
    machine, head, layers, copies = map(json.loads, capsys.readouterr().out.splitlines())
    assert (machine["part"], machine["card"]) == ("machine", "CPU")
    assert head["error"] == "CUDA error: misaligned address"
    assert layers["error"] == "exit code -6"
    assert (copies["part"], copies["rate"]) == ("copies", 1)


def test_a_part_has_no_more_time_than_is_left() -> None:
    assert "no time is left" in command.result("head", "cpu", True, 0.0)["error"]
    assert "not done after 0 s" in command.result("head", "cpu", True, 0.01)["error"]


def test_a_row_has_exactly_its_tokens_and_the_learner_computes_it() -> None:
    micro = make_row(300, groups=2, completion=16)
    assert micro.batch.token_ids.shape == (1, 300)
    assert (len(micro.batch.targets), micro.weights.sum()) == (2 * 8 * 16, pytest.approx(1))
    policy = make_policy("7b", SMALL)
    work = Work.of(policy, micro, SMALL.device)
    work.forward().backward()
    gradients = [p.grad for p in policy.parameters() if p.requires_grad]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert language_flops(text_config(policy), micro.batch) > 0


@pytest.mark.parametrize("shape", ["3b", "7b"])
def test_the_shapes_are_those_of_the_published_models(shape: str) -> None:
    with torch.device("meta"):
        config = text_config(make_policy(shape, Setting(torch.device("meta"), small=False)))
    assert config.num_hidden_layers == {"3b": 36, "7b": 28}[shape]
    assert config.vocab_size > 150_000


def test_the_head_agrees_with_a_plain_one_and_rates_are_positive() -> None:
    assert measurement("head")(SMALL)["largest_difference"] < 1e-4
    for part in ("copies", "optimizer"):
        numbers = [v for v in flat(measurement(part)(SMALL)) if isinstance(v, float)]
        assert numbers
        assert min(numbers) > 0


def flat(value: object) -> list[object]:
    if isinstance(value, dict):
        return [number for part in value.values() for number in flat(part)]
    if isinstance(value, list):
        return [number for part in value for number in flat(part)]
    return [value]


def test_layers_and_utilisation_are_measured_at_each_length() -> None:
    layers = measurement("layers")(SMALL)
    assert [entry["tokens"] for entry in layers["plain"]] == [entry["tokens"] for entry in layers["checkpointed"]]
    utilisation = measurement("mfu_7b")(SMALL)
    assert (utilisation["goal"], utilisation["mfu"]) == (0.40, None)
    assert 0 < utilisation["of_a_matrix_product"] < 1


@pytest.mark.slow
def test_flex_attention_is_exact_and_compiled_twice() -> None:
    """With FlexAttention of the CPU, which has no backward."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch():
        assert measurement("compilation")(SMALL)["compilations"] == 2
        differences = measurement("attention")(SMALL)["largest_difference_over_rms"]
    assert differences["float32"]["output"] < 1e-4
    torch._dynamo.reset()


@pytest.mark.slow
def test_a_zero_step_gives_the_same_twice() -> None:
    measured = measurement("zero_step")(SMALL)
    assert measured["device"] == "cpu"
    assert measured["largest_difference"] == {"losses": 0, "grad_norms": 0, "weights": 0}
    assert measured["losses"][0] != measured["losses"][1]
