"""Questions to train on about the embedded world in V-STaR's format, in SER's dataset format.

    python -m benchmarks.vstar_questions data/shapes-vstar/train.json     # writes train-rl.jsonl and train-sft.jsonl

`-rl` asks of each row what (in which quadrant the shape is), when and where, with spans, key frames and boxes, so
that SER, Open-o3-Video's seven rewards and RLER's can be computed. All three have the same question, the one that the
embedded referees know; the text for the task in configs/experiment/evidence_claim.yaml says what to answer. So `what`
is a general free-form question of Open-o3-Video's, `when` its temporal one and `where` its temporal-spatial one.

`-sft` has, for each row, PER_ROW of the seven texts below in one of two forms at random, with a completion:

- `claims`: <think>I see <obj>red circle</obj><box>[12,30,33,50]</box>at<t>3.0</t>s</think><answer>top left</answer>
- `cited frames`: <think>I see the red circle at 3.0 s at the top left</think><keyframes>[3]</keyframes>
  <answer>top left</answer><confidence>0.9</confidence>

The texts are V-STaR's five (evaluation/vstar/prompts) and those of `-rl`, of which `what` is V-STaR's. Boxes
extend beyond the shape as those of the first embedded policy's training (rollout/dataset/shapes). Equal annotations and
seeds give equal files.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.vstar.prompts import BOXES_FORM, INTERVAL_FORM, questions
from evidence.errors import BadInput
from evidence.files import whole_file
from evidence.geometry import convert
from evidence.plain import dumps
from evidence.types import NORMALISED, Box, Sample
from rollout.dataset import read_dataset, ser
from rollout.dataset.open_o3 import SPATIO_TEMPORAL_QA, TEMPORAL_QA
from rollout.dataset.shapes import FRAME_SPACE, SIDE, hurried

FREE_FORM = "General video QA Free-form"
CLAIMS, CITED = "claims", "cited frames"  # tasks of the -sft file, which configs/world/vstar.yaml words
PER_ROW = 4
# What follows the question in the -rl file: the texts of the tasks in configs/experiment/evidence_claim.yaml.
ASKS = {
    FREE_FORM: "If the answer is a person, there is no need to identify them.",
    TEMPORAL_QA: f"When is it in sight? {INTERVAL_FORM}",
    SPATIO_TEMPORAL_QA: f"Where is it while it is in sight? {BOXES_FORM.format(0)}",
}
UNSURE = 14.0  # pixels of the clip between a shape's centre and the nearest line between quadrants


class Answers:
    """The completions that a hurried annotator would write about one row.

    boxes: by second, in whole pixels of the frame that the policy sees. All completions about a row have the same.
    """

    def __init__(self, sample: Sample, row: dict[str, Any], rng: np.random.Generator):
        (self.name,) = {phrase for items in sample.key_items.values() for phrase in items}
        self.answer, self.asked = sample.answer, int(float(row["question"].split(" at ")[1].split()[0]))
        self.truth = {int(key.time): sample.key_items[key.idx][self.name][0] for key in sample.key_frames}
        self.boxes = {at: _drawn(hurried(box, rng)) for at, box in self.truth.items()}
        self.seconds = sorted(self.boxes)
        extra = int(rng.choice([0, 1, 2], p=[0.25, 0.55, 0.2]))
        others = [second for second in self.seconds if second != self.asked]
        self.shown = [self.asked, *sorted(rng.permutation(others)[:extra].tolist())]

    def text(self, kind: str, form: str) -> str:
        """kind: what, when or where."""
        first, last = self.seconds[0], self.seconds[-1]
        answer, seconds = {
            "what": (self.answer, self.shown),
            "when": (f"{first:.1f} to {last:.1f}", [first, last]),
            "where": (boxes_text(self.boxes), [first, last]),
        }[kind]
        if form == CLAIMS:
            return f"<think>I see {' and '.join(map(self._claim, seconds))}</think><answer>{answer}</answer>"
        places = {
            "what": " and ".join(f"at {s:.1f} s at the {quadrant_of(self.truth[s])}" for s in seconds),
            "when": f"from {first:.1f} s to {last:.1f} s",
            "where": f"first at {first:.1f} s at the {quadrant_of(self.truth[first])} and last at {last:.1f} s",
        }
        cited = sorted(self.shown) if kind == "what" else self.seconds
        return (
            f"<think>I see the {self.name} {places[kind]}</think><keyframes>[{','.join(map(str, cited))}]</keyframes>"
            f"<answer>{answer}</answer><confidence>{confidence(self.truth[self.asked]):.1f}</confidence>"
        )

    def _claim(self, second: int) -> str:
        box = ",".join(map(str, self.boxes[second]))
        return f"<obj>{self.name}</obj><box>[{box}]</box>at<t>{second:.1f}</t>s"


def _drawn(box: Box) -> list[int]:
    return [round(side) for side in convert(box, NORMALISED, FRAME_SPACE)]


def boxes_text(boxes: dict[int, list[int]]) -> str:
    """The JSON object of an answer to `where`."""
    return json.dumps(boxes, separators=(",", ":"))


def quadrant_of(box: Box) -> str:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return f"{'top' if y < 0.5 else 'bottom'} {'left' if x < 0.5 else 'right'}"


def confidence(box: Box) -> float:
    """.9 for a shape that is clearly in a quadrant, down to .5 for one on a line between two."""
    margin = min(abs((box[0] + box[2]) / 2 - 0.5), abs((box[1] + box[3]) / 2 - 0.5)) * SIDE
    return round(0.5 + 0.4 * min(margin / UNSURE, 1), 1)


def to_reward(sample: Sample) -> Iterator[Sample]:
    """The three samples of the -rl file."""
    boxes = {int(key.time): _drawn(box) for key in sample.key_frames for box in next(iter(_items(sample, key.idx)))}
    (span,) = sample.spans
    answers = {FREE_FORM: sample.answer, TEMPORAL_QA: json.dumps(span), SPATIO_TEMPORAL_QA: boxes_text(boxes)}
    for (task, answer), kind in zip(answers.items(), ("what", "when", "where"), strict=True):
        yield replace(sample, id=f"{sample.id}-{kind}", task=task, answer=answer, source="shapes-vstar", follow_ups={})


def _items(sample: Sample, idx: str) -> Iterator[tuple[Box, ...]]:
    yield from sample.key_items[idx].values()


def to_imitate(sample: Sample, row: dict[str, Any], rng: np.random.Generator) -> Iterator[Sample]:
    """The samples of the -sft file about one row."""
    answers = Answers(sample, row, rng)
    asked = [f"{sample.question}\n{ask}" for ask in (ASKS[TEMPORAL_QA], ASKS[SPATIO_TEMPORAL_QA])]
    texts = [*questions(row).items(), *zip(("when", "where"), asked, strict=True)]
    for n, pick in enumerate(rng.permutation(len(texts))[:PER_ROW]):
        kind, text = texts[pick]
        form = str(rng.choice([CLAIMS, CITED]))
        yield replace(
            sample,
            id=f"{sample.id}-{n}",
            source="shapes-vstar",
            task=form,
            question=text,
            reasoning=answers.text(kind.removesuffix("_2"), form),
            follow_ups={},
        )


def write_questions(annotation: Path, seed: int) -> dict[str, int]:
    """Write both files and return their numbers of samples."""
    rows = json.loads(annotation.read_text(encoding="utf-8"))
    samples = [replace(s, id=f"{Path(s.id).name}-{n}") for n, s in enumerate(read_dataset(annotation))]
    rngs = (np.random.default_rng([seed, n]) for n in range(len(rows)))
    files = {
        "rl": [line for sample in samples for line in to_reward(sample)],
        "sft": [line for args in zip(samples, rows, rngs) for line in to_imitate(*args)],
    }
    root = annotation.parent.resolve()
    for name, lines in files.items():
        with (
            whole_file(annotation.with_name(f"{annotation.stem}-{name}.jsonl")) as part,
            part.open("w", encoding="utf-8") as file,
        ):
            file.writelines(
                dumps(ser.write(s, lambda p: str(Path(p).resolve().relative_to(root)))) + "\n" for s in lines
            )
    return {name: len(lines) for name, lines in files.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotation", type=Path, help="a training annotation of `ser data make-shapes --format vstar`")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    counts = write_questions(args.annotation, args.seed)
    print(", ".join(f"{count} samples for {name}" for name, count in counts.items()))


if __name__ == "__main__":
    try:
        main()
    except BadInput as error:
        print(f"vstar_questions: {error}", file=sys.stderr)
        sys.exit(2)
