"""A calibration as tables and plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from referee.trust.attacks import MEAN_BAR, P95_BAR
from referee.trust.calibration import VERDICTS

matplotlib.use("agg")
from matplotlib import pyplot as plt

Report = dict[str, Any]
GREY, BLUE, ORANGE, GREEN = "#999999", "#1f77b4", "#ff7f0e", "#2ca02c"


def print_report(report: Report, out: Path) -> None:
    """Print the tables of a calibration that was written to `out`."""
    console = Console()
    table = Table(title="The referee against the labels (95% intervals over clips)")
    for name in ("", *VERDICTS):
        table.add_column(name)
    verdicts = [report["verdicts"][name] for name in VERDICTS]
    table.add_row("positives / negatives", *(f"{v['positives']} / {v['negatives']}" for v in verdicts))
    for key, name in (("auroc", "AUROC"), ("spearman", "Spearman")):
        table.add_row(name, *(_with_interval(v[key]) for v in verdicts))
    table.add_row("ECE as given", *(_number(v["ece"]["before"]) for v in verdicts))
    table.add_row("ECE calibrated", *(_with_interval(v["ece"]) for v in verdicts))
    table.add_row("temperature", *(_number(report["temperature"].get(name)) for name in VERDICTS))
    table.add_row("best threshold (F1)", *(_best(v["thresholds"]) for v in verdicts))
    console.print(table)
    console.print(_strata(report))
    if "second" in report:
        console.print(_agreement(report["second"]))
    for pair in report.get("raters", []):
        kappas = ", ".join(f"{kind} {_number(value)}" for kind, value in pair["kappa"].items())
        console.print(escape(f"raters {' and '.join(pair['raters'])}: {pair['claims']} claims, kappa {kappas}"))
    fitted, reported = report["fitted_on"], report["reported_on"]
    console.print(
        f"Fitted on {fitted['claims']} claims about {fitted['clips']} clips, reported on {reported['claims']} about "
        f"{reported['clips']} others. {_left_out(report)}"
        f"Written to {escape(str(out))}: calibration.json, report.json and plots."
    )


def print_attacks(report: Report) -> None:
    """Print the tables of `ser calibrate --attacks`."""
    console = Console()
    table = Table(title="Gains of attacks (score above an honest claim with the same box and time)")
    for name in ("boxes", "attack", "n", "mean", "95%", "max", "highest score"):
        table.add_column(name)
    for boxes in ("unrelated", "too loose"):
        rows = {"all": report[boxes], **report[boxes]["kinds"]}
        for kind, row in rows.items():
            figures = (_number(row[key]) for key in ("mean", "p95", "max", "highest_score"))
            table.add_row(
                boxes if kind == "all" else "", kind, str(row["attacks"]), *figures, end_section=kind == [*rows][-1]
            )
    console.print(table)
    for boxes in ("unrelated", "too loose"):
        worst = Table(title=f"The worst ten on {boxes} boxes")
        for name in ("gain", "score", "attack", "phrase", "honest", "question"):
            worst.add_column(name)
        for attack in report[boxes]["worst"]:
            texts = (escape(ascii(attack[key])[1:-1][:60]) for key in ("phrase", "honest", "question"))
            worst.add_row(_number(attack["gain"]), _number(attack["score"]), attack["kind"], *texts)
        console.print(worst)
    console.print(f"Limits for unrelated boxes: mean under {MEAN_BAR}, 95% under {P95_BAR}. {_left_out(report)}")


def _left_out(report: Report) -> str:
    left_out = report["left_out"] | {"claims with readings that are not finite": report.get("not_finite", 0)}
    counts = [f"{n} {reason}" for reason, n in left_out.items() if n]
    return f"Left out: {', '.join(counts)}. " if counts else ""


def _strata(report: Report) -> Table:
    table = Table(title="By stratum of claims: mean label over 2, and mean reading")
    table.add_column("")
    table.add_column("n")
    for name in VERDICTS:
        table.add_column(name)
    strata = report["verdicts"]["product"]["strata"]
    for stratum, row in strata.items():
        cells = [report["verdicts"][name]["strata"][stratum] for name in VERDICTS]
        table.add_row(stratum, str(row["n"]), *(f"{_number(c['grade'])}  {_number(c['reading'])}" for c in cells))
    return table


def _agreement(second: Report) -> Table:
    left_out = f", {second['not_finite']} left out: not finite" if second["not_finite"] else ""
    table = Table(title=f"Agreement with the second referee on {second['claims']} claims{left_out}")
    for name in ("", *VERDICTS):
        table.add_column(name)
    for key, name in (("kappa", "Cohen's kappa"), ("spearman", "Spearman")):
        table.add_row(name, *(_with_interval(second[verdict][key]) for verdict in VERDICTS))
    return table


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"


def _with_interval(figure: Report) -> str:
    low, high = figure["interval"]
    return f"{_number(figure['value'])} ({_number(low)} to {_number(high)})"


def _best(cuts: list[Report]) -> str:
    known = [cut for cut in cuts if cut["f1"] == cut["f1"]]
    if not known:
        return "-"
    best = max(known, key=lambda cut: cut["f1"])
    return f"{best['threshold']} ({best['f1']:.3f})"


def write_plots(report: Report, out: Path) -> None:
    """Write reliability.png, thresholds.png and strata.png into `out`."""
    _reliability(report).savefig(out / "reliability.png", dpi=120)
    _thresholds(report).savefig(out / "thresholds.png", dpi=120)
    _bars(report).savefig(out / "strata.png", dpi=120)
    plt.close("all")


def _panels(height: float) -> tuple[Any, Any]:
    figure, axes = plt.subplots(1, len(VERDICTS), figsize=(12, height), sharey=True, layout="constrained")
    for axis, name in zip(axes, VERDICTS):
        axis.set_title(name)
    return figure, axes


def _reliability(report: Report) -> Any:
    figure, axes = _panels(4.2)
    for axis, name in zip(axes, VERDICTS):
        verdict = report["verdicts"][name]
        axis.plot([0, 1], [0, 1], color="black", linewidth=0.7, linestyle=":")
        for when, colour, error in (
            ("before", GREY, verdict["ece"]["before"]),
            ("after", BLUE, verdict["ece"]["value"]),
        ):
            bins = verdict["reliability"][when]
            label = f"{'as given' if when == 'before' else 'calibrated'}, ECE {error:.3f}"
            axis.plot([b["reading"] for b in bins], [b["truth"] for b in bins], "o-", color=colour, label=label)
        axis.set(xlabel="mean reading", xlim=(0, 1), ylim=(0, 1))
        axis.legend(loc="upper left")
    axes[0].set_ylabel("mean label over 2")
    return figure


def _thresholds(report: Report) -> Any:
    figure, axes = _panels(3.6)
    for axis, name in zip(axes, VERDICTS):
        cuts = report["verdicts"][name]["thresholds"]
        for key, colour in (("precision", BLUE), ("recall", ORANGE), ("f1", GREEN)):
            axis.plot([cut["threshold"] for cut in cuts], [cut[key] for cut in cuts], "o-", color=colour, label=key)
        axis.set(xlabel="threshold on the reading", xlim=(0, 1), ylim=(0, 1.02))
    axes[0].legend(loc="lower left")
    return figure


def _bars(report: Report) -> Any:
    strata = list(report["verdicts"]["product"]["strata"])
    figure, axes = _panels(1.2 + 0.35 * len(strata))
    places = range(len(strata))
    for axis, name in zip(axes, VERDICTS):
        rows = [report["verdicts"][name]["strata"][stratum] for stratum in strata]
        axis.barh([p - 0.2 for p in places], [row["grade"] for row in rows], 0.4, color=GREY, label="label over 2")
        axis.barh([p + 0.2 for p in places], [row["reading"] for row in rows], 0.4, color=BLUE, label="reading")
        axis.set(xlim=(0, 1), yticks=list(places), yticklabels=strata)
    axes[0].invert_yaxis()
    axes[-1].legend(loc="lower right")
    return figure
