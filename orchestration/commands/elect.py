"""`ser elect`: one answer for each question, elected among recorded candidates (docs/election.md)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evidence.errors import BadInput
from evidence.plain import dumps

ID_CHARS, ANSWER_CHARS = 24, 48  # widths of the table


def add_elect(command: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    command.add_argument("--candidates", required=True, type=Path, metavar="FILE", help="JSON lines: id, text, …")
    command.add_argument(
        "--method", required=True, help="rler, majority, open_o3, self_certainty or sparse_to_dense (docs/election.md)"
    )
    command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="constants of the method")
    command.add_argument("--json", action="store_true", help="print one JSON object per question")
    command.set_defaults(run=lambda args: main(args.candidates, args.method, args.overrides, args.json))


def main(path: Path, method_name: str, overrides: Sequence[str], as_json: bool) -> None:
    """Print the result for each question, in the order of the file. Raises BadInput."""
    from evaluation.election import METHODS
    from evaluation.election.candidates import read_candidates, require_inputs
    from evaluation.election.election import elect
    from orchestration.config import load_config

    if method_name not in METHODS:
        raise BadInput(f"--method {method_name}: must be one of {', '.join(METHODS)}")
    method = load_config(METHODS[method_name], None, overrides)
    questions = read_candidates(path)
    for candidates in questions.values():
        require_inputs(candidates, method.INPUTS, method.NAME)
    results = {question: elect(candidates, method) for question, candidates in questions.items()}
    if as_json:
        for question, elected in results.items():
            print(dumps(_line(question, elected), places=6, ensure_ascii=False))
    else:
        _print_table(questions, results)


def _line(question: str, elected: Any) -> dict[str, Any]:
    return {
        "id": question,
        "answer": elected.answer,
        "scores": elected.scores,
        "used": elected.used,
        "margin": elected.margin,
    }


def _print_table(questions: dict[str, Any], results: dict[str, Any]) -> None:
    print(f"{'id':{ID_CHARS}}  {'answer':{ANSWER_CHARS}}  {'used':>7}  margin")
    for question, elected in results.items():
        answer = "(none)" if elected.answer is None else elected.answer
        used = f"{elected.used}/{len(questions[question])}"
        id_cell, answer_cell = _cell(question, ID_CHARS), _cell(answer, ANSWER_CHARS)
        print(f"{id_cell:{ID_CHARS}}  {answer_cell:{ANSWER_CHARS}}  {used:>7}  {elected.margin:6.3f}")
    used = sum(elected.used for elected in results.values())
    unanswered = sum(elected.answer is None for elected in results.values())
    print(f"{len(results)} questions, {used / len(results):.1f} candidates each, {unanswered} without an answer")


def _cell(text: str, width: int) -> str:
    """Text that may hold anything, on one line: no control characters reach the terminal."""
    shown = "".join(char if char.isprintable() else " " for char in text[: 4 * width])
    shown = " ".join(shown.split())
    return shown if len(shown) <= width else f"{shown[: width - 1]}…"
