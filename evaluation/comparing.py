"""Reports of `ser eval --json` side by side: one row per report, and paired differences. Pure.

Two reports are paired if they are about the same benchmark under the same protocol, with the scores of their samples:
on the samples that both have, each resample draws the same videos for both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from evaluation.measures import RESAMPLES, paired
from evaluation.registry import named, table_of

PROTOCOL_KEYS = ("mode", "boxes", "judge", "protocol")
Reports = Mapping[str, Mapping[str, Any]]  # name -> report


def protocol(report: Mapping[str, Any]) -> str:
    """What the numbers of a report depend on besides the answers, as `mode=official boxes=as_written`."""
    return " ".join(f"{key}={report[key]}" for key in PROTOCOL_KEYS if key in report)


def compare(reports: Reports, resamples: int = RESAMPLES) -> dict[str, Any]:
    """`rows`: the headline metric of each report with its interval. `pairs`: differences, second minus first, of
    reports that can be paired. `unpaired`: the pairs about one benchmark that cannot, with the reason."""
    rows = [_row(name, report) for name, report in reports.items()]
    pairs, unpaired = [], []
    for first, second in combinations(reports, 2):
        a, b = reports[first], reports[second]
        if a["benchmark"] != b["benchmark"]:
            continue
        why = _unpairable(a, b)
        if why:
            unpaired.append({"first": first, "second": second, "reason": why})
        else:
            pairs += list(_differences(first, second, a, b, resamples))
    return {"rows": rows, "pairs": pairs, "unpaired": unpaired}


def _row(name: str, report: Mapping[str, Any]) -> dict[str, Any]:
    headline = report["headline"]
    return {
        "report": name,
        "benchmark": report["benchmark"],
        "metric": ".".join(headline),
        "value": _at(report, headline),
        "ci95": _at(report.get("ci95"), headline),
        "n": report["n"],
        "protocol": protocol(report),
    }


def _at(tree: Any, key: Sequence[str]) -> Any:
    for name in key:
        tree = tree[name] if tree is not None else None
    return tree


def _unpairable(a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    if protocol(a) != protocol(b):
        return f"different protocols: {protocol(a)} and {protocol(b)}"
    if not a.get("samples") or not b.get("samples"):
        return "the scores of the samples are not in both files"
    if not {r["id"] for r in a["samples"]} & {r["id"] for r in b["samples"]}:
        return "no sample in common"
    return None


def _differences(
    first: str, second: str, a: Mapping[str, Any], b: Mapping[str, Any], resamples: int
) -> Iterator[dict[str, Any]]:
    """One object per metric."""
    by_id = {r["id"]: r for r in b["samples"]}
    records = [r for r in a["samples"] if r["id"] in by_id]
    others = [by_id[r["id"]] for r in records]
    benchmark = named(a["benchmark"])
    columns, metrics = table_of(benchmark, a, records)
    other_columns, _ = table_of(benchmark, b, others)
    videos = [r["video"] for r in records]
    for key, (difference, low, high) in paired(videos, columns, other_columns, metrics, resamples).items():
        yield {
            "first": first,
            "second": second,
            "benchmark": a["benchmark"],
            "metric": ".".join(key),
            "difference": difference,
            "ci95": [low, high],
            "n": len(records),
            "protocol": protocol(a),
        }
