"""Which alerts the metrics of recorded runs raise: on honest runs, each is a false alarm.

    python -m benchmarks.alerts runs/evidence-claim/*/train

Prints JSON: for each run its steps and the alerts with the steps at which they are raised; and for each rule the alerts
of all runs and how many runs hold the metrics that it needs. Lines without `claims/*`, of runs before these metrics,
get them from samples.jsonl, which has one group of each step: the last GROUPS of them stand for a step, fewer at first.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evidence.errors import BadInput
from evidence.lines import records
from orchestration.reporting.alerts import RULES, AlertWatch
from orchestration.reporting.completions import LEAST_GROUPS, top_phrase
from orchestration.run_report.recorded import METRICS, Run, read_runs

GROUPS = 8
NEEDS = {
    "stall": "time/step_s",
    "agreement": "agreement/alarm",
    "missing_verdicts": "evidence/asked",
    "not_finite": "learner/loss",
    "entropy_collapse": "learner/entropy",
    "length_drift": "rollout/tokens",
    "one_phrase": "claims/top_phrase_share",
}


def lines_of(run: Run) -> Iterator[dict[str, Any]]:
    groups = {group.step: group for group in run.groups()}
    seen: deque[list[list[str]]] = deque(maxlen=GROUPS)
    for line in records(run.folder / METRICS):
        if (group := groups.get(line["step"])) is not None:
            seen.append([[claim["phrase"] for claim in of_one["claims"]] for of_one in group.lines])
        claims = any(any(of_one) for of_group in seen for of_one in of_group)
        if "claims/per_completion" not in line and len(seen) >= LEAST_GROUPS and claims:
            phrase, share = top_phrase(list(seen))
            line |= {"claims/top_phrase": phrase, "claims/top_phrase_share": share}
        yield line


def alerts_of(run: Run) -> tuple[dict[str, Any], set[str]]:
    """What is printed of a run, and the names of its metrics."""
    watch, raised, names, steps = AlertWatch(), [], set[str](), 0
    for line in lines_of(run):
        raised += [{"step": line["step"], "alert": alert.name, "text": alert.text} for alert in watch.step(line)[1]]
        names |= set(line)
        steps += 1
    return {"run": run.name, "steps": steps, "alerts": raised}, names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs of `ser train`")
    found = [alerts_of(run) for run in read_runs(parser.parse_args().runs)]
    raised = Counter(alert["alert"] for of_run, _ in found for alert in of_run["alerts"])
    rules = {
        rule: {"alerts": raised[rule], "runs with its metrics": sum(NEEDS[rule] in names for _, names in found)}
        for rule in RULES
    }
    steps = sum(of_run["steps"] for of_run, _ in found)
    print(json.dumps({"steps": steps, "rules": rules, "runs": [of_run for of_run, _ in found]}, indent=2))


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        print(f"alerts: {error}", file=sys.stderr)
        sys.exit(2)
