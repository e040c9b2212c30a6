"""A plan as text. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from orchestration.planning.memory import GIB
from orchestration.planning.plan import PAYS, Plan
from orchestration.planning.workload import assumptions

NAME = 44  # characters of the first column


def table(plan: Plan) -> str:
    """The lines that `ser plan` prints."""
    split, outcome = plan.split, plan.outcome
    lines = [
        f"{plan.gpus} x {plan.gpu}: {split.ranks} ranks, {split.engines} engines, {split.referees} of each referee "
        f"({plan.needed:g} GPUs)",
        "it fits" if plan.fits else "it does not fit:",
        *(f"  {problem}" for problem in plan.problems),
    ]
    for role in plan.roles:
        lines += _section(f"GiB on each GPU: {role.role}", ((n, b / GIB) for n, b in role.components.items()))
        lines.append(_line(f"together, of {role.limit / GIB:.1f}", role.total / GIB))
    lines += _section("GiB of main memory on each node", ((n, b / GIB) for n, b in plan.node.items()))
    lines.append(_line("together", sum(plan.node.values()) / GIB))
    lines += _section("seconds of a step, each stage alone", plan.stages.items())
    lines.append(_line("the loop, simulated", outcome.step_s))
    lines += _section("share of the time without work, by what is waited for", outcome.idle.items())
    lines += _section("the run", [("mean staleness, versions", outcome.staleness_mean)])
    lines.append(_line("hours", plan.hours))
    lines.append(_line("GPU-hours", plan.hours * plan.gpus))
    verdict = "asynchrony pays" if plan.async_gain >= PAYS else "asynchrony does not pay"
    lines.append(_line(f"synchronous over asynchronous step ({verdict})", plan.async_gain))
    if plan.tried:
        lines += ["", f"divisions of {plan.gpus} GPUs: ranks, engines, of each referee; seconds of a step"]
    for tried in plan.tried:
        division = f"{tried.split.ranks}, {tried.split.engines}, {tried.split.referees}"
        lines.append(_line(division if tried.fits else f"{division} (does not fit)", tried.step_s))
    lines += ["", "assumed, and measured on no GPU:", *(f"  {line}" for line in assumptions())]
    return "\n".join(lines)


def _section(title: str, rows: Iterable[tuple[str, float]]) -> list[str]:
    return ["", title, *(_line(name, value) for name, value in rows)]


def _line(name: str, value: float) -> str:
    return f"  {name:<{NAME}} {value:8.2f}"
