"""Speed of parsing completions on one core: `evidence.grammar.parse`, next to `json.loads` of the same texts.

json.loads gets each text as one JSON string, the least work that any Python parser must do, so it measures the machine.
The two alternate; rates are per CPU second of this process, and figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence

from evidence.grammar import parse

OBJECTS = ("red circle", "man in a blue jacket", "dog", "white ceramic cup", "the left traffic light")
ANSWERS = ("top left", "B", "He puts the cup on the table.", "From <t>3.0</t>s to <t>9.5</t>s")


def completion(rng: random.Random) -> str:
    """One to four claims in a few words of reasoning, and an answer."""
    claims = []
    for _ in range(rng.randint(1, 4)):
        x, y = rng.randint(0, 300), rng.randint(0, 200)
        box = [x, y, x + rng.randint(10, 200), y + rng.randint(10, 200)]
        claims.append(f"<obj>{rng.choice(OBJECTS)}</obj><box>{box}</box>at<t>{rng.uniform(0, 60):.1f}</t>s")
    thought = " and then, a little later, ".join(claims)
    return f"<think>I see {thought}, so it is there.</think><answer>{rng.choice(ANSWERS)}</answer>"


def rate(parser: Callable[[str], object], texts: Sequence[str]) -> float:
    """Texts per CPU second."""
    start = time.process_time()
    for text in texts:
        parser(text)
    return len(texts) / (time.process_time() - start)


def measure(n: int, rounds: int, seed: int) -> dict[str, object]:
    rng = random.Random(seed)
    texts = [completion(rng) for _ in range(n)]
    as_json = [json.dumps(text) for text in texts]
    parsed, loaded = [], []
    for _ in range(rounds):
        parsed.append(rate(parse, texts))
        loaded.append(rate(json.loads, as_json))
    return {
        "completions": n,
        "rounds": rounds,
        "characters_mean": round(statistics.mean(map(len, texts))),
        "valid_claims_mean": round(statistics.mean(sum(c.valid for c in parse(text).claims) for text in texts), 2),
        "parse_per_s": round(statistics.median(parsed)),
        "parse_per_s_min_max": [round(min(parsed)), round(max(parsed))],
        "json_loads_per_s": round(statistics.median(loaded)),
        "json_loads_per_s_min_max": [round(min(loaded)), round(max(loaded))],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Completions per second parsed by the tag grammar, next to json.loads."
    )
    parser.add_argument("--completions", type=int, default=2000, help="different texts; default %(default)s")
    parser.add_argument("--rounds", type=int, default=15, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    args = parser.parse_args()
    print(json.dumps(measure(args.completions, args.rounds, args.seed), indent=1))


if __name__ == "__main__":
    main()
