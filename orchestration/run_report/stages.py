"""Where the seconds of a run's steps went, and what bounds the run. Pure.

A step begins when the learner starts to wait for its batch and ends when its weights are published. An evaluation that
holds training up comes between two steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COMPLETIONS = "waits for completions"
VERDICTS = "waits for verdicts"
EVALUATION = "waits for an evaluation"
LEARNER = "trains"
REST = "publishes weights, and the rest"
STAGES = (COMPLETIONS, VERDICTS, EVALUATION, LEARNER, REST)
WAITS = (COMPLETIONS, VERDICTS, EVALUATION)
# What bounds a run whose learner spends its time so, and what would help.
BOUNDS = {
    COMPLETIONS: ("Rollout-bound", "more rollout engines, shorter completions or more staleness would help"),
    VERDICTS: ("Referee-bound", "more replicas of the referee or fewer claims would help"),
    EVALUATION: ("Evaluation-bound", "a second rollout engine or rarer evaluations would help"),
    LEARNER: ("Learner-bound", "more or faster ranks would help"),
    REST: ("Bound by what follows the training of a step", "rarer publications of weights would help"),
}


def stage_seconds(line: Mapping[str, Any]) -> dict[str, float] | None:
    """Seconds by stage of one line of metrics.jsonl; None if it does not hold them."""
    step_s, wait_s = number(line.get("time/step_s")), number(line.get("time/wait_s"))
    if step_s is None or wait_s is None:
        return None
    verdicts = min(number(line.get("time/wait_referee_s")) or 0.0, wait_s)
    learner = min(number(line.get("learner/seconds")) or 0.0, max(0.0, step_s - wait_s))
    return {
        COMPLETIONS: wait_s - verdicts,
        VERDICTS: verdicts,
        EVALUATION: number(line.get("time/eval_s")) or 0.0,
        LEARNER: learner,
        REST: max(0.0, step_s - wait_s - learner),
    }


def totals(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds by stage over all steps but the first, which compiles and fills the pipeline; empty if no step holds
    them."""
    known = [seconds for line in lines[len(lines) > 1 :] if (seconds := stage_seconds(line)) is not None]
    return {stage: sum(seconds[stage] for seconds in known) for stage in STAGES} if known else {}


def bound_by(seconds: Mapping[str, float]) -> str:
    """One sentence that says what bounds the run, from the seconds by stage: the longest wait if the learner waits for
    longer than it works, else the longest work."""
    total = sum(seconds.values())
    if not total:
        return ""
    waited = sum(seconds[stage] for stage in WAITS)
    stages = WAITS if waited > total - waited else (LEARNER, REST)
    name, remedy = BOUNDS[max(stages, key=lambda stage: seconds[stage])]
    shares = {stage: f"{seconds[stage] / total:.0%}" for stage in WAITS}
    waits = [f"{share} {stage.removeprefix('waits ')}" for stage, share in shares.items() if share != "0%"]
    detail = f": {', '.join(waits)}" if waits else ""
    return f"{name}: the learner waited in {waited / total:.0%} of the time of the steps{detail}; {remedy}."


def number(value: Any) -> float | None:
    """A recorded number; None for anything else, truth values included."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
