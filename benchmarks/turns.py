"""Programs that run one step on request, so that compared programs can alternate and see the same load."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

# Prefix of the line in which a program prints the CPU seconds of a step.
CPU_SECONDS = "cpu_seconds "


class Turns:
    """A program that runs a step for each line on its standard input, prints the CPU seconds it took, and prints a line
    of JSON at the end of the input. Raises ChildProcessError if the program ends early."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None):
        self.command = " ".join(command)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def step(self) -> float:
        """Run the next step and return its CPU seconds."""
        print(file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith(CPU_SECONDS):
                return float(line.removeprefix(CPU_SECONDS))
        raise ChildProcessError(f"exit code {self.process.wait()} from {self.command}")

    def end(self) -> dict[str, Any]:
        """End the program and return its final JSON."""
        output, _ = self.process.communicate()
        if self.process.returncode:
            raise ChildProcessError(f"exit code {self.process.returncode} from {self.command}")
        report: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
        return report
