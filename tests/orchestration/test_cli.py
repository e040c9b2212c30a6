"""The command line: exit codes, one line for bad input, and no heavy imports in light commands."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from evidence.errors import BadInput, RunFailed
from orchestration import cli
from orchestration.machine import require_memory

ROOT = Path(__file__).parents[2]
COMPLETE = """
data: {train: a.json, heldout: b.json}
model: {policy: p, referee: r}
reward: ser
steps: 3
run_dir: runs/x
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(COMPLETE)
    return path


def test_config_prints_the_resolved_values(config, capsys):
    assert cli.main(["config", str(config), "learner.schedule.lr=3e-4"]) == 0
    printed = capsys.readouterr().out
    assert "lr: 0.0003" in printed
    assert "max_pixels: 100352" in printed


def test_overrides_may_stand_before_and_after_options(config, capsys):
    assert cli.main(["config", str(config), "steps=4", "--for", "train", "seed=5"]) == 0
    printed = capsys.readouterr().out
    assert "steps: 4\n" in printed
    assert "seed: 5\n" in printed


@pytest.mark.parametrize(
    "argv",
    [
        ["train", "missing.yaml"],
        ["config", "{config}", "--fro", "train"],
        ["doctor", "steps=4"],
        ["train", "{config}", "learner.schedule.lrr=1"],
        ["train"],
        ["trian"],
        ["data", "check", "missing.json"],
        ["data", "make-shapes", "{folder}"],
        ["data", "make-shapes", "{folder}/new", "--train", "many"],
        ["data", "make-shapes", "{folder}/new", "--train", "1000000000"],
        ["data", "make-shapes", "{folder}/new", "--workers", "100000"],
        ["data", "check", "{config}", "--workers", "100000"],
        ["train", "{config}", f"steps={10**26}"],
        ["train", "{config}", f"seed={10**12}"],
        [],
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(config, capsys, argv):
    filled = [part.format(config=config, folder=config.parent) for part in argv]
    assert cli.main(filled) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ser: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "file", "own"),
    [
        (["config", "--for", "sft"], "configs/experiment/quickstart.yaml", "train"),
        (["config", "--for", "calibrate"], "configs/sft/policy.yaml", "sft"),
        (["train"], "configs/sft/policy.yaml", "sft"),
        (["sft"], "configs/calibrate/shapes.yaml", "calibrate"),
    ],
)
def test_a_config_of_another_command_is_named_as_such(capsys, command, file, own):
    assert cli.main([*command, str(ROOT / file)]) == 2
    error = capsys.readouterr().err
    assert f"{file}: is a config of `ser {own}`, not of `ser {command[-1]}`, which has no " in error
    assert f"`ser config --for {own}` take it" in error
    assert error.count("\n") == 1


def test_a_misspelt_key_does_not_make_it_a_config_of_another_command(config, capsys):
    config.write_text(COMPLETE + "semed: 3\n")
    assert cli.main(["config", str(config)]) == 2
    assert "unknown key semed; the nearest known one is seed" in capsys.readouterr().err
    assert cli.main(["config", str(config), "--for", "sft"]) == 2
    assert "is a config of `ser train`" in capsys.readouterr().err


def test_bad_input_raised_in_an_actor_is_printed_without_its_stack_trace(config, capsys, monkeypatch):
    from ray.exceptions import RayTaskError

    wrapped = RayTaskError("work", "Traceback …\n  File …\n", BadInput("x: wrong")).as_instanceof_cause()

    def fail(args):
        raise wrapped

    monkeypatch.setattr(cli, "_print_config", fail)
    assert cli.main(["config", str(config)]) == 2
    assert capsys.readouterr().err == "ser: x: wrong\n"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_module_and_script_are_the_same_command(config):
    script = run(str(Path(sys.executable).with_name("ser")), "config", str(config))
    module = run(sys.executable, "-m", "orchestration", "config", str(config))
    assert script.stdout == module.stdout != ""
    assert run(sys.executable, "-m", "orchestration", "config", "missing.yaml").returncode == 2


def test_the_config_command_imports_nothing_heavy(config):
    code = (
        "import sys; from orchestration.cli import main; "
        f"main(['config', {str(config)!r}]); "
        "sys.exit(str([m for m in ('torch', 'vllm', 'ray', 'transformers', 'cv2', 'decord') if m in sys.modules]))"
    )
    assert run(sys.executable, "-c", code).stderr == "[]\n"


def test_doctor_reports_a_complete_environment(capsys):
    assert cli.main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for part in ("cores", "ray", "vllm", "deepspeed", "torch", "transformers"):
        assert part in printed


def test_an_object_store_that_cannot_fit_is_refused():
    require_memory(0.01)
    with pytest.raises(BadInput, match=r"cluster\.object_store_gib = 100000"):
        require_memory(100_000)


def test_an_object_store_above_the_file_size_limit_is_refused(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (2**20, 2**20))
    with pytest.raises(RunFailed, match=r"object_store_gib = 0\.01: .*ulimit -f"):
        require_memory(0.01)


def test_make_shapes_then_check(tmp_path, capsys):
    out = tmp_path / "shapes"
    sizes = ["--train", "2", "--val", "1", "--test", "1", "--questions", "1", "--workers", "1"]
    assert cli.main(["data", "make-shapes", str(out), *sizes]) == 0
    assert cli.main(["data", "check", str(out / "test.json"), "--media"]) == 0
    video = next((out / "videos" / "test").rglob("*.mp4"))
    video.write_bytes(video.read_bytes()[:100])
    capsys.readouterr()
    assert cli.main(["data", "check", str(out / "test.json")]) == 0
    assert cli.main(["data", "check", str(out / "test.json"), "--media"]) == 2
    assert video.name in capsys.readouterr().err
    video.unlink()
    assert cli.main(["data", "check", str(out / "test.json")]) == 2
