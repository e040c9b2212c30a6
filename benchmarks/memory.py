"""Peak memory of a command and all its descendants: the sum of PSS, so that shared pages count once.

Guarantees: orphaned or renamed processes and those with their own session, like Ray's daemons, are counted, too. This
process becomes the subreaper (PR_SET_CHILD_SUBREAPER), to which Linux reparents orphans, so all descendants of the
command stay below it. Processes of a cluster that was already running are not descendants, and are not counted.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36
DEFAULT = ["make", "quickstart", "smoke=true"]
EVERY_S = 2.0
# Titles that Ray and vLLM set. "ray::Actor.method" is the process "ray::Actor" while it runs a method.
TITLE = re.compile(r"ray::\w+|VLLM::\w+")
KIB_PER_GIB = 2**20


def adopt_orphans() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def kind(command_line: list[str], name: str) -> str:
    """The kind of a process: its title if it set one, else its program and, for Python, its script."""
    if title := TITLE.match(" ".join(command_line)):
        return title[0]
    program = Path(command_line[0]).name if command_line else name
    scripts = [Path(word).name for word in command_line[1:] if word.endswith(".py")]
    modules = [command_line[at + 1] for at, word in enumerate(command_line[:-1]) if word == "-m"]
    return " ".join([program, *scripts[:1], *modules[:1]])


def pss_gib(pid: int) -> float:
    """PSS of a process in GiB; 0 if it has ended, zombies included."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) / KIB_PER_GIB if match else 0.0


def sample() -> Counter[str]:
    """kind -> GiB of all descendants of this process."""
    now: Counter[str] = Counter()
    for process in psutil.Process().children(recursive=True):
        try:
            now[kind(process.cmdline(), process.name())] += pss_gib(process.pid)
        except psutil.Error:  # it has just ended
            continue
    return now


def measure(command: list[str], every_s: float) -> dict[str, object]:
    """Run `command` to its end. Reports its exit code, the peak of the sum, and the peak of each kind (not necessarily
    at the same time)."""
    adopt_orphans()
    peak, peaks, samples = 0.0, Counter[str](), 0
    child = subprocess.Popen(command, stdout=sys.stderr)
    while child.poll() is None:
        now = sample()
        peak, peaks, samples = max(peak, now.total()), peaks | now, samples + 1
        time.sleep(every_s)
    return {
        "command": command,
        "exit_code": child.returncode,
        "samples": samples,
        "peak_gib": round(peak, 3),
        "peak_gib_by_kind": {name: round(gib, 3) for name, gib in peaks.most_common()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Peak PSS of a command and all its descendants.")
    parser.add_argument("command", nargs="*", default=DEFAULT, help=f"after --; default: {' '.join(DEFAULT)}")
    parser.add_argument("--every", type=float, default=EVERY_S, metavar="SECONDS", help="default %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    args = parser.parse_args()
    if not Path(f"/proc/{os.getpid()}/smaps_rollup").is_file():
        print("memory: /proc/PID/smaps_rollup is missing; it needs Linux 4.14 or newer", file=sys.stderr)
        return 2
    report = measure(args.command, args.every)
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        print(f"| process kind | peak GiB |\n|---|---|\n| **all together** | **{report['peak_gib']:.2f}** |")
        for name, gib in report["peak_gib_by_kind"].items():
            print(f"| {name} | {gib:.2f} |")
    return int(report["exit_code"] != 0)


if __name__ == "__main__":
    sys.exit(main())
