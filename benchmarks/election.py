"""RLER's election against the majority of eight candidates and a single answer, on SIMULATED candidates.

No model is involved: this measures the election, given candidates whose evidence says something about their answer, and
not what a trained policy gains. A question has four options, a chance of a right answer that is drawn from a Beta
distribution, one tempting wrong option and three true frames of sixteen. A candidate's text is in RLER's form and is
read by the real code. `evidence` sets how much its evidence depends on its answer being right: at 1, right candidates
cite mostly true frames, are surer and repeat themselves less; at 0, right and wrong ones are drawn alike, and evidence
is worthless. The tempting option has frames of its own, so that wrong candidates can corroborate each other, too.

Methods, all on the same candidates in the same order:
- single: the first candidate. majority_8: the majority of all eight, at full cost.
- majority_8_decided: the same answer, but without candidates that can no longer change it.
- majority_same_cost: the majority of as many candidates as rler uses on average, rounded up.
- rler: with its early stop, as published. rler_8: all eight. rler_same_cost: as many as majority_same_cost.
- rler_lead_0.5: stops early only if the lead exceeds half of all votes, in place of .08.

`tokens_saved`: share of the words of eight candidates that were not drawn. Intervals (95%) of the differences to
majority_8 are bootstrapped over the questions of all seeds.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.comparison import paired_bootstrap_ci
from evaluation.election.candidates import Candidate
from evaluation.election.election import Method, elect
from evaluation.election.majority import Majority
from evaluation.election.rler import Rler
from evidence.plain import dumps
from referee.terms.words import plain

Results = dict[str, np.ndarray]  # float [questions] each
Pool = Callable[[list[np.ndarray]], np.ndarray]
OPTIONS, FRAMES, TRUE_FRAMES, DRAWN = "ABCD", 16, 3, 8
WORDS = [f"word{n}" for n in range(400)]


@dataclass(frozen=True)
class Question:
    """right, tempting: options. chance: of a right answer. frames: the option -> the frames that speak for it."""

    right: str
    tempting: str
    chance: float
    frames: dict[str, list[int]]


def question(rng: random.Random) -> Question:
    right, tempting = rng.sample(OPTIONS, 2)
    frames = {option: rng.sample(range(FRAMES), TRUE_FRAMES) for option in OPTIONS}
    return Question(right, tempting, rng.betavariate(2.2, 1.4), frames)


def candidate(asked: Question, evidence: float, rng: random.Random) -> Candidate:
    is_right = rng.random() < asked.chance
    wrong = asked.tempting if rng.random() < 0.6 else rng.choice([o for o in OPTIONS if o != asked.right])
    option = asked.right if is_right else wrong
    quality = 0.5 + evidence * (0.25 if is_right else -0.25)
    cited = {
        rng.choice(asked.frames[option]) if rng.random() < quality else rng.randrange(FRAMES)
        for _ in range(rng.randint(1, 4))
    }
    listed = [*sorted(cited), *([FRAMES + 3] if rng.random() < 0.3 * (1 - quality) else [])]
    length = max(5, round(rng.gauss(150, 45)))
    loop = rng.sample(WORDS, 12)
    repeated = round(length * rng.betavariate(1.5, 6) * 2 * (1 - quality))
    thought = rng.choices(WORDS, k=length - repeated) + (loop * (length // 12 + 1))[:repeated]
    confidence = min(1.0, max(0.0, rng.gauss(0.35 + 0.5 * quality, 0.15)))
    text = f"<think>{' '.join(thought)}</think><keyframes>{listed}</keyframes><answer>{option}</answer>"
    return Candidate(text, FRAMES, round(confidence, 2))


def results(truths: Sequence[str], drawn: Sequence[Sequence[Candidate]], method: Method) -> Results:
    """Per question: 1 if the elected answer is right, the candidates used, and their words."""
    elected = [elect(candidates, method) for candidates in drawn]
    return {
        "right": np.array([float(plain(e.answer or "") == plain(truth)) for e, truth in zip(elected, truths)]),
        "used": np.array([float(e.used) for e in elected]),
        "words": np.array([float(words(c[: e.used])) for e, c in zip(elected, drawn)]),
    }


def words(candidates: Sequence[Candidate]) -> int:
    return sum(len(one.text.split()) for one in candidates)


def compare(
    truths: Sequence[str], drawn: Sequence[Sequence[Candidate]], rler: Callable[..., Rler] = Rler
) -> dict[str, Results]:
    """Method -> its results. drawn: DRAWN candidates for each question. rler: with constants for these candidates."""
    published = results(truths, drawn, rler())
    same_cost = math.ceil(published["used"].mean())
    others = {
        "single": Majority(candidates=1),
        "majority_8": Majority(),
        "majority_8_decided": Majority(stop_decided=True),
        "majority_same_cost": Majority(candidates=same_cost),
        "rler_lead_0.5": rler(stop_lead=0.5),
        "rler_8": rler(stop_least=DRAWN),
        "rler_same_cost": rler(candidates=same_cost, stop_least=same_cost),
    }
    return {"rler": published} | {name: results(truths, drawn, method) for name, method in others.items()}


def measure(seed: int, questions: int, evidence: float) -> dict[str, Results]:
    """Method -> its results, for `questions` of one seed."""
    rng = random.Random(seed)
    asked = [question(rng) for _ in range(questions)]
    return compare([q.right for q in asked], [[candidate(q, evidence, rng) for _ in range(DRAWN)] for q in asked])


def report(by_seed: Sequence[dict[str, Results]], pool: Pool = np.concatenate) -> dict[str, Any]:
    """Means of each method over all seeds, and the difference of its accuracy to majority_8. pool: of the seeds' values
    of a question, if they are about the same questions."""

    def pooled(method: str, key: str) -> np.ndarray:
        return pool([seed[method][key] for seed in by_seed])

    full = pooled("majority_8", "words").sum()
    return {
        method: {
            "accuracy": pooled(method, "right").mean(),
            "accuracy_by_seed": [seed[method]["right"].mean() for seed in by_seed],
            "over_majority_8_ci95": paired_bootstrap_ci(
                pooled("majority_8", "right"), pooled(method, "right"), draws=2000
            ),
            "candidates": pooled(method, "used").mean(),
            "tokens_saved": 1 - pooled(method, "words").sum() / full,
        }
        for method in by_seed[0]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=1000, help="for each seed")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    figures = {
        f"evidence={evidence:g}": report([measure(seed, args.questions, evidence) for seed in range(args.seeds)])
        for evidence in (1.0, 0.5, 0.0)
    }
    line = {"simulated": True, "questions": args.questions, "seeds": args.seeds} | figures
    print(dumps(line, places=4, indent=1))


if __name__ == "__main__":
    main()
