"""What the report says about each run in words and numbers: its state, what it did, and held-out clips before and
after. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from evaluation.comparison import as_evaluation, common_clips, comparison, known_mean
from evidence.visible import visible
from orchestration.reporting.alerts import RULES
from orchestration.reporting.display import clock
from orchestration.reporting.heldout_records import DRAWS
from orchestration.run_report.recorded import Run
from orchestration.run_report.settings_table import flattened
from orchestration.run_report.stages import STAGES, bound_by, number, totals

# Counters of the last step that should be 0, and what they count.
TROUBLES = {
    "learner/skipped": "steps skipped, since loss or gradient was not finite",
    "engines/restarts": "restarts of engines and referees",
    "engines/refused_updates": "weight sets that an engine refused",
    "referee/missing": "questions without an answer of the referee",
    "evidence/missing": "claims without a verdict",
    "referee/breaker_open": "questions refused by the open circuit breaker",
    "frames/lost": "frames lost with a node",
    "frames/decoder_deaths": "deaths of decoders",
    "checkpoint/failed": "checkpoints that could not be written",
    "disk/failed_writes": "writes that failed",
    "disk/wandb_failed": "steps that wandb did not take",
}
MEASURES = (
    ("reward", "Evidence reward (r_SER)"),
    ("accuracy", "Answer accuracy"),
    ("iou", "Box IoU with labels"),
    ("claims", "Claims per completion"),
    ("valid_claim_share", "Completions with a valid claim"),
    ("box_area", "Box area, share of the frame"),
)


@dataclass(frozen=True)
class Change:
    """A held-out measure; None where it is not known. low, high: 95% interval of after minus before."""

    measure: str
    before: float | None
    after: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class BeforeAfter:
    """The held-out comparison of a run. draw: greedy or sampled. clips: how many both evaluations could read."""

    run: int
    draw: str
    clips: int
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Stage:
    name: str
    seconds: float
    share: float


@dataclass(frozen=True)
class Card:
    """state: finished, running, interrupted. facts, troubles: (name, text). summary: all of summary.json, flat."""

    name: str
    folder: str
    state: str
    explained: str
    facts: tuple[tuple[str, str], ...]
    troubles: tuple[tuple[str, str], ...]
    stages: tuple[Stage, ...]
    bound: str
    summary: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def card(run: Run, notes: Sequence[str] = ()) -> Card:
    """What the report says about a run. notes: besides those of the run itself."""
    name, explained = state(run)
    seconds = totals(run.steps)
    total = sum(seconds.values())
    return Card(
        name=run.name,
        folder=str(run.folder),
        state=name,
        explained=explained,
        facts=tuple(facts(run)),
        troubles=tuple(troubles(run)),
        stages=tuple(Stage(stage, seconds[stage], seconds[stage] / total) for stage in STAGES if total),
        bound=bound_by(seconds),
        summary=tuple((key, _shown(value)) for key, value in flattened(run.summary)),
        notes=(*run.notes, *notes),
    )


def state(run: Run) -> tuple[str, str]:
    """The run's state in a word, and how that is known."""
    if run.summary:
        return "finished", "It wrote summary.json at its end."
    if run.held:
        return "running", "A process holds the folder. The page shows what was written until now."
    if not run.steps:
        return "not begun", "It took no step, and no process on this machine holds the folder."
    return "interrupted", "It wrote no summary.json, and no process on this machine holds the folder."


def facts(run: Run) -> Iterator[tuple[str, str]]:
    config, last = run.config, run.steps[-1] if run.steps else {}
    planned = config.steps if config else run.settings.get("steps")
    yield "Steps", f"{run.last_step} of {planned}" if planned is not None else str(run.last_step)
    if run.starts:
        resumed = f", resumed {len(run.starts) - 1} times" if len(run.starts) > 1 else ""
        yield "Began", _shown(run.starts[0]["began"]) + resumed
        codes = dict.fromkeys(map(code, run.starts))
        yield "Code", visible(", then ".join(codes))
    if run.steps and run.last is not None:
        yield "Last step", f"{_date(run.last)}, by the time of metrics.jsonl"
    seconds = number(run.summary.get("wall_s")) or number(last.get("seconds"))
    if seconds:
        yield "Training time", clock(seconds)
    if config is not None:
        yield "Policy", config.model.policy
        yield "Referee", ", ".join(source.model or source.url for source in config.model.referee)
        yield "Data", ", ".join(file.path for file in config.data.train)
        weights = ", ".join(f"{term} × {settings.weight:g}" for term, settings in config.reward.terms.items())
        yield "Reward", weights + (" (shuffled: a control)" if config.shuffle_rewards else "")
        pacing = config.pacing
        yield "Step", f"{pacing.groups_per_step} groups of {config.sampling.group_size} completions"
        yield "Loss, seed", f"{config.algorithm.loss}, {config.seed}"
    if (trained := number(last.get("ledger/trained"))) is not None:
        yield "Trained groups", f"{trained:.0f}"
    worst = max((value for line in run.steps if (value := number(line.get("staleness/max"))) is not None), default=None)
    bound = number(last.get("staleness/bound"))
    if worst is not None and bound is not None:
        yield "Staleness", f"at most {worst:.0f} versions, bound {bound:.0f}"
    best = run.summary.get("best_checkpoint")
    if isinstance(best, Mapping):
        yield "Best checkpoint", f"step {best.get('step')}, {best.get('metric')} {_shown(best.get('value'))}"


def code(start: Mapping[str, Any]) -> str:
    """The commit of a start's code."""
    commit = start.get("commit")
    if not commit:
        return "unknown: not a git checkout"
    return f"{commit}, with changes that are not committed" if start.get("dirty") else str(commit)


def troubles(run: Run) -> Iterator[tuple[str, str]]:
    """What went wrong, as counted by the last step."""
    last = run.steps[-1] if run.steps else {}
    for key, what in TROUBLES.items():
        if number(last.get(key)):
            yield _shown(last[key]), what
    for key, value in last.items():
        if key.startswith("rejected/") and number(value):
            yield _shown(value), f"groups rejected: {key.removeprefix('rejected/')}"
    alarms = {"agreement/alarm": "in which the reward rose while the referee's agreement with labels fell"}
    alarms |= {f"alert/{name}": f"with the alert {name}" for name in RULES if name != "agreement"}
    for key, what in alarms.items():
        alarmed = [line["step"] for line in run.steps if number(line.get(key))]
        if alarmed:
            yield str(len(alarmed)), f"steps, {alarmed[0]} first, {what}"


def before_after(index: int, run: Run) -> list[BeforeAfter]:
    """The comparison of each draw, from the records of the held-out clips; without `after` for a run that has not
    finished."""
    compared = []
    for draw in DRAWS:
        before, after = run.heldout.get((0, draw)), run.heldout.get((run.last_step, draw))
        if not before:
            continue
        try:
            first = as_evaluation(before)
            both = common_clips(first, as_evaluation(after)) if after and run.last_step else None
        except ValueError:  # a clip without a verdict
            continue
        if both is None or not both[0].clips:
            means = {
                key: known_mean(getattr(first, key)) for key in ("reward", "accuracy", "iou", "claims", "box_area")
            }
            means["valid_claim_share"] = known_mean(first.valid_claims > 0)
            changes = tuple(Change(title, means[key], None) for key, title in MEASURES)
            compared.append(BeforeAfter(index, draw, len(first.clips), changes))
            continue
        report = comparison(*both)
        changes = tuple(
            Change(title, report[f"{key}_before"], report[f"{key}_after"], *(report.get(f"{key}_ci95") or (None, None)))
            for key, title in MEASURES
        )
        compared.append(BeforeAfter(index, draw, report["heldout_clips"], changes))
    return compared


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)
