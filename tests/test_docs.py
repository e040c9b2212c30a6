"""The commands in the documentation: all parse, with keys that exist, each is run or says why not
(`orchestration/test_documented_commands.py` runs the cheap ones), and the tutorial runs as it stands.

The tutorial is run by the `ser` of an installed wheel, outside the checkout, so that the wheel is tested by the same.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
from importlib import import_module
from pathlib import Path

import pytest
from page_commands import MARKS, ROOT, commands, script

from orchestration import cli
from orchestration.config import load_config, recipe_file
from orchestration.typed_yaml import section_of

EMBEDDED = {"train": "quickstart", "sft": "policy", "calibrate": "shapes"}  # stand for a config of the reader's own
COMMANDS = commands()
SER = [command for command in COMMANDS if command.words[0] == "ser"]


def test_there_are_commands_to_look_at():
    assert len(SER) > 40
    assert {"make", "python"} < {command.words[0] for command in COMMANDS}


@pytest.mark.parametrize("command", SER, ids=str)
def test_a_command_parses_and_its_keys_exist(command):
    args = cli._parsed(["1" if word == "N" else word for word in command.words[1:] if word != "…"])
    if getattr(args, "command", None) not in EMBEDDED:
        return
    config = args.config or EMBEDDED[args.command]
    if config.isupper() or config in ("my.yaml", "RUN/config.yaml"):  # placeholders
        config = EMBEDDED[args.command]
    file = recipe_file(cli.CONFIGURED[args.command][2], config, str(command))
    inputs = ["data.train=a", "data.heldout=b", "model.policy=c", "model.referee=d", "run_dir=e"]
    load_config(cli._schema(args.command), file, [*(inputs if args.command == "train" else []), *args.overrides])


@pytest.mark.parametrize("command", [command for command in SER if not command.runs], ids=str)
def test_a_command_that_no_test_runs_says_why(command):
    """Otherwise: mark its block `sh`, or say in a comment what it needs."""
    assert command.mark or command.has_placeholder, f"{command}: not run, and neither a placeholder nor one of {MARKS}"


def test_a_training_with_a_recipe_for_gpus_says_what_it_needs():
    """Its placeholders do not say that it cannot be tried on a CPU."""
    recipes = [c for c in SER if c.words[1] == "train" and "gpu/" in c.words[2] and "dry_run=true" not in c.words]
    assert len(recipes) > 3
    assert [str(command) for command in recipes if command.mark not in ("needs GPU", "needs a cluster")] == []


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.words[0] == "make"], ids=str)
def test_a_target_exists(command):
    makefile = (ROOT / "Makefile").read_text()
    for target in (word for word in command.words[1:] if "=" not in word):
        assert re.search(rf"^(\S+ )*{re.escape(target)}( \S+)*:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.words[1:2] == ("-m",) and c.words[2] != "pip"], ids=str)
def test_a_module_exists_and_knows_its_options(command):
    path = ROOT / command.words[2].replace(".", "/")
    file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__main__.py"
    own = command.words[3 : command.words.index("--") if "--" in command.words else None]
    unknown = [word for word in own if word.startswith("--") and f'"{word}"' not in file.read_text(encoding="utf-8")]
    assert unknown == []


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The bin folder of an environment that holds the wheel of this tree and, of the checkout's environment, the
    packages alone: their folder is on the path, but the links to the checkout in it are not followed."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    source = folder / "source"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source], check=True)
    venv.create(folder / "env", symlinks=True)
    packages = folder / "env/lib/python3.11/site-packages"
    shared = sysconfig.get_paths()["purelib"]
    (packages / "shared.pth").write_text(f"{shared}\nimport ser_torchvision_ops\n")
    wheel = next(folder.glob("ser-*.whl"))
    subprocess.run([*pip, "--python", folder / "env/bin/python", "install", "--no-deps", wheel], check=True)
    return folder / "env/bin"


@pytest.mark.slow
def test_the_tutorial_runs_as_it_stands_with_an_installed_wheel(installed, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{installed}:{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-eux", "-c", script(ROOT / "docs/tutorial.md")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "my/run"
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 4
    assert f"policy: {installed.parent}" in (run / "config.yaml").read_text()
    assert (tmp_path / "my/report.html").is_file()
    assert "<img" in (tmp_path / "my/answer.html").read_text()
    assert any((tmp_path / "my/shown").iterdir())


def test_every_key_of_a_config_is_explained(monkeypatch):
    """The configuration reference takes what a key means from the docstring of its section."""
    monkeypatch.syspath_prepend(ROOT / "docs/hooks")
    reference = import_module("config_reference")
    sections = {section for schema in reference.COMMANDS.values() for _, section in reference.nested(schema)}
    schemas = {*reference.COMMANDS.values(), *sections}
    unexplained = [
        f"{schema.__name__}.{key}"
        for schema in schemas
        for key, hint in reference.keys(schema).items()
        if key not in reference.read(schema)[1] and not section_of(hint)
    ]
    assert unexplained == []
    texts = [meaning for schema in schemas for meaning in reference.read(schema)[1].values()]
    cut = [text for text in texts if not text.endswith((".", ")", "`"))]
    assert cut == [], "a word with a colon cut a sentence"
