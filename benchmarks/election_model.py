"""Elections among the embedded policy's own completions: what benchmarks/election measures, with a real engine.

    python -m benchmarks.election_model                       # the warm start, eight candidates a question, 3 seeds
    python -m benchmarks.election_model --brightness 1        # all on the frames as they are

V-STaR's "what" questions about the embedded world, answered with cited frames. The eight candidates are drawn at RLER's
temperatures, three on the frames as they are, then three on brighter ones, and so on. `right_by_candidate` is the share
of right answers among the first candidates, the second ones, and so on. Completions are recorded, and a recorded set is
not drawn again. All seeds ask the same questions: intervals (95%) draw questions, with the mean over seeds of each.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.election import DRAWN, Results, compare, report, results
from benchmarks.vstar_answers import CITED, ROOT, TEST, Draw, answers, rows_of
from evaluation.election.candidates import Candidate
from evaluation.election.majority import Majority
from evaluation.election.rler import Rler
from evidence.errors import BadInput
from evidence.plain import dumps
from rollout.dataset.shapes import MOMENTS

KIND = "what"
TEMPERATURES = (0.2, 0.7, 0.9)
# Thoughts of this world have a few dozen words: as in configs/experiment/evidence_claim_rler.yaml.
RLER = partial(Rler, think_high=60)


def measure(
    model: Path, limit: int, brightness: float, seed: int, folder: Path
) -> tuple[dict[str, Results], list[float]]:
    """Method -> its results, and the share of right answers by candidate."""
    draws = [Draw(TEMPERATURES[n % 3], (1.0, brightness)[n // 3 % 2]) for n in range(DRAWN)]
    file = folder / f"{model.absolute().name}-{brightness:g}-{seed}.json"
    texts = answers(model, TEST, limit, CITED, draws, seed, file, [KIND])
    truths = [row["answer"] for row in rows_of(TEST, limit)]
    drawn = [[Candidate(text, frames=MOMENTS) for text in texts[f"{n}/{KIND}"]] for n in range(limit)]
    alone = [results(truths, [[one[n]] for one in drawn], Majority(candidates=1)) for n in range(DRAWN)]
    return compare(truths, drawn, RLER), [float(one["right"].mean()) for one in alone]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "assets/policy-vstar")
    parser.add_argument("--questions", type=int, default=400, help="of the test split, from the first (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="of the draws (%(default)s)")
    parser.add_argument("--brightness", type=float, default=1.25, help="of the brighter frames (%(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/election-model", help="the record (%(default)s)")
    args = parser.parse_args()
    found = [measure(args.model, args.questions, args.brightness, seed, args.out) for seed in range(args.seeds)]
    line = {
        "model": args.model.name,
        "questions": args.questions,
        "seeds": args.seeds,
        "brightness": args.brightness,
        "right_by_candidate": np.mean([shares for _, shares in found], axis=0).tolist(),
    }
    methods = report([by_method for by_method, _ in found], lambda values: np.mean(values, axis=0))
    print(dumps(line | methods, places=4, indent=1))


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        print(f"election_model: {error}", file=sys.stderr)
        sys.exit(2)
