"""The commands in the documentation's code blocks, and which of them a test runs.

A command of a block marked `sh` is run, one of any other block is parsed. A comment in its line, or in the line before,
says what it needs beyond a CPU and a few seconds (`MARKS`); such a command is parsed only.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MARKS = ("needs GPU", "needs a cluster", "starts engines")
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PROGRAM = re.compile(r"(?:\.venv/bin/|env/bin/)?(ser|make|python|ray job submit|sbatch)\s")
OPTIONAL = re.compile(r"\[(--[^\]]*|key=value …|KEY=VALUE …)\]")  # in a synopsis
# A word of capitals, alone or as a part of a path, or a file that the reader writes.
PLACEHOLDER = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2,}(_[A-Z]+)*(?![\w-])|…|\bmy\.(yaml|json)\b")


@dataclass(frozen=True)
class Command:
    page: str
    words: tuple[str, ...]
    kind: str  # what follows ``` of its block
    output: str | None  # the file that stdout goes to
    mark: str | None  # one of MARKS

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"

    @property
    def runs(self) -> bool:
        return self.kind == "sh" and self.mark is None

    @property
    def has_placeholder(self) -> bool:
        return any(PLACEHOLDER.search(word) for word in self.words)


def blocks(page: Path) -> list[tuple[str, str]]:
    """(What follows the opening ```, text) of each code block."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def script(page: Path) -> str:
    """The `sh` blocks of a page without the marked commands."""
    lines = [line for kind, block in blocks(page) if kind == "sh" for line in _marked_lines(block)]
    return "".join(f"{line}\n" for line, mark in lines if mark is None)


def commands() -> list[Command]:
    """Every command of a block, without comments; what a synopsis marks as optional is given."""
    found = []
    for page in PAGES:
        for kind, block in blocks(page):
            for line, mark in _marked_lines(block) if kind in ("", "sh") else ():
                if program := PROGRAM.match(line):
                    line = OPTIONAL.sub(lambda m: m[1] if m[1].startswith("--") else "", line)
                    line, _, output = line.partition(" > ")
                    words = [program[1], *shlex.split(line, comments=True)[1:]]
                    found.append(
                        Command(page.name, _submitted(words), kind, output.partition("#")[0].strip() or None, mark)
                    )
    return found


def _submitted(words: list[str]) -> tuple[str, ...]:
    """The `ser` command that a job of Ray or Slurm runs; any other command as it is."""
    if "orchestration" in words:
        return ("ser", *words[words.index("orchestration") + 1 :])
    if words[0] == "sbatch":
        return ("ser", "train", *words[next(k for k, word in enumerate(words) if word.endswith(".sbatch")) + 1 :])
    return tuple(words)


def _marked_lines(block: str) -> list[tuple[str, str | None]]:
    """The lines, joined where a backslash continues them, with the mark in their comment or that of the line before."""
    marked, above = [], ""
    for line in block.replace("\\\n", " ").splitlines():
        comment = above + line.partition("# ")[2]
        marked.append((line, next((mark for mark in MARKS if mark in comment), None)))
        above = line if line.startswith("#") else ""
    return marked
