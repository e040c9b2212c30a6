"""Programs that take a step when it is their turn: what is compared is then measured in the same minutes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

# What a program prints behind this is a step's CPU seconds.
SAYS = "cpu_seconds "


class Turns:
    """A program that takes a step for each line on its standard input, says how long it took, and ends with a line of
    JSON when there are no more. Raises ChildProcessError if it ends before."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None):
        self.command = " ".join(command)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def step(self) -> float:
        """CPU seconds of its next step."""
        print(file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith(SAYS):
                return float(line.removeprefix(SAYS))
        raise ChildProcessError(f"exit code {self.process.wait()} from {self.command}")

    def end(self) -> dict[str, Any]:
        """What it says of itself at its end."""
        said, _ = self.process.communicate()
        if self.process.returncode:
            raise ChildProcessError(f"exit code {self.process.returncode} from {self.command}")
        found: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
        return found
