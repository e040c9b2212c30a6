"""Speed of re-scoring a V-STaR result file, next to `json.loads` of the same file.

A made file of as many samples as the benchmark has, each with two intervals and with boxes for every whole second of
its truth, twice. Re-scoring is everything that `ser eval vstar --results` does without the bootstrap: reading the file,
checking each sample, its scores, the means, and the report as JSON. Both alternate; figures are medians of the rounds,
in CPU seconds of this process. With --throughput: benchmarks/evaluation_throughput.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluation.faults import Faults
from evaluation.reading import rows
from evaluation.vstar.report import evaluate
from evidence.plain import dumps

SAMPLES = 2094


def sample(number: int, rng: random.Random) -> dict[str, Any]:
    start = rng.uniform(0, 60)
    end = start + rng.uniform(2, 25)
    seconds = range(math.ceil(start), math.floor(end) + 1)
    values: dict[str, Any] = {
        "vid": f"video{number // 2}",
        "domain": rng.choice(("Sports", "Entertainment", "Daily life")),
        "fps": 29.97,
        "width": 1280,
        "height": 720,
        "frame_count": rng.randint(1500, 9000),
        "question": "What does the man in the blue jacket put on the table?",
        "chain": "<think>The man walks to the table first, and then puts down what he holds.<think>",
        "object": "cup",
        "answer": "A white cup.",
        "temporal_question": "When does the man in the blue jacket put the cup on the table?",
        "timestamps": [start, end],
        "spatial_question": "Where is the cup in these seconds?",
        "spatial_question_2": "Where is the cup?",
        "bboxes": [
            {"timestamp": second, "frame_index": 30 * second, **dict(zip(("xmin", "ymin", "xmax", "ymax"), box(rng)))}
            for second in seconds
        ],
        "answer_vqa": "A white cup on the table.",
        "VQA_score": rng.randint(0, 3),
    }
    for suffix in ("", "_2"):
        values[f"answer_temporal{suffix}"] = [start + rng.uniform(-2, 2), end + rng.uniform(-1, 2)]
        values[f"answer_spatial{suffix}"] = {str(second): box(rng) for second in seconds}
    return values


def box(rng: random.Random) -> list[int]:
    x, y = rng.randint(0, 1000), rng.randint(0, 500)
    return [x, y, x + rng.randint(20, 270), y + rng.randint(20, 210)]


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def rescore(path: Path) -> str:
    faults = Faults()
    return dumps(evaluate(rows(path, faults), resamples=0, faults=faults))


def measure(samples: int, rounds: int, seed: int) -> dict[str, object]:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        path.write_text(json.dumps([sample(number, rng) for number in range(samples)]), encoding="utf-8")
        text = path.read_text(encoding="utf-8")
        rescore(path)  # imports
        loads, scores = [], []
        for _ in range(rounds):
            loads.append(seconds(lambda: json.loads(text)))
            scores.append(seconds(lambda: rescore(path)))
    return {
        "samples": samples,
        "rounds": rounds,
        "megabytes": round(len(text) / 1e6, 2),
        "json_loads_s": round(statistics.median(loads), 4),
        "rescore_s": round(statistics.median(scores), 4),
        "ratio": round(statistics.median(scores) / statistics.median(loads), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The cost of evaluation: re-scoring V-STaR results, or the runner.")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="default %(default)s")
    parser.add_argument("--rounds", type=int, default=9, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--throughput", action="store_true", help="measure the runner next to its bare engine instead")
    parser.add_argument("--questions", type=int, default=96, help="of a turn of the runner (default %(default)s)")
    args = parser.parse_args()
    if args.throughput:
        from benchmarks import evaluation_throughput  # imports ray

        report = evaluation_throughput.measure(args.questions, args.rounds, args.seed)
    else:
        report = measure(args.samples, args.rounds, args.seed)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
