"""Speed of scoring completions on one core, without a referee, next to `json.loads` of the same texts.

Groups of eight completions of Open-o3-Video's six tasks, with reasoning of about a hundred words that contains claims.
`scored_per_s` covers parsing and scoring: `evidence.grammar.parse` and all terms of the recipe through the reward
graph. `terms_per_s` covers only the terms, for parsed completions. No text is scored twice, so that no cache helps.
json.loads gets each text as one JSON string. The three alternate; rates are per CPU second of this process, and figures
are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence

from evidence.grammar import parse
from evidence.types import FrameInfo, KeyFrame, Sample
from orchestration.config import load_config, recipe_file
from referee.reward.graph import RewardGraph
from referee.reward.settings import RewardConfig
from referee.terms.view import GroupView

GROUP = 8
FRAMES = FrameInfo("bench", tuple(float(4 * i) for i in range(16)), (392, 224), (1280, 720), 64.0)
OBJECTS = ("red circle", "man in a blue jacket", "dog", "white ceramic cup", "the left traffic light")
TALK = (
    "the man then slowly walks over to table and puts down a white cup while his dog is watching from behind an open "
    "door which had been closed before so it seems that he wants someone else to drink what remains inside of it"
)
WORDS = TALK.split()
ANSWERS = {
    "visual QA": "<obj>cup</obj><box>[320, 180, 640, 540]</box>",
    "temporal-spatial free-form QA": "The man puts the white cup on the table.",
    "temporal QA": "[12.0, 20.5]",
    "temporal QA (MCQ)": "B\n[12.0, 20.5]",
    "General video QA MCQ": "B",
    "General video QA Free-form": "He wants his friend to drink what remains in it.",
}


def sample(task: str, rng: random.Random) -> Sample:
    keys = [KeyFrame(str(i), rng.uniform(0, 64)) for i in range(4)]
    items = {key.idx: dict.fromkeys(rng.sample(OBJECTS, 2), ((0.1, 0.2, 0.4, 0.8),)) for key in keys}
    return Sample(
        id="0",
        source="bench",
        task=task,
        question="What?",
        answer=ANSWERS[task],
        video_path="a.mp4",
        image_size=(1280, 720),
        key_frames=tuple(keys),
        key_items=items,
        spans=((12.0, 20.5),) if task.startswith("temporal QA") else (),
    )


def completion(task: str, rng: random.Random) -> str:
    thought = []
    for _ in range(rng.randint(1, 4)):
        x, y = rng.randint(0, 300), rng.randint(0, 150)
        box = [x, y, x + rng.randint(10, 90), y + rng.randint(10, 70)]
        thought += [*rng.choices(WORDS, k=rng.randint(20, 50)), f"<obj>{rng.choice(OBJECTS)}</obj><box>{box}</box>"]
        thought[-1] += f"at<t>{rng.uniform(0, 60):.1f}</t>s"
    return f"<think>{' '.join(thought)}.</think><answer>{answer(task, rng)}</answer>"


def answer(task: str, rng: random.Random) -> str:
    start = rng.uniform(5, 20)
    interval = f"From <t>{start:.1f}</t>s to <t>{start + rng.uniform(1, 10):.1f}</t>s"
    answers = {
        "visual QA": f"<obj>cup</obj><box>{[rng.randint(0, 90) for _ in range(2)] + [200, 180]}</box>",
        "temporal QA": interval,
        "temporal QA (MCQ)": f"{interval}\nCorrect Option: {rng.choice('ABCD')}",
        "General video QA MCQ": rng.choice("ABCD"),
    }
    return answers.get(task) or " ".join(rng.choices(WORDS, k=rng.randint(5, 15)))


def group(about: Sample, texts: Sequence[str]) -> GroupView:
    return GroupView(about, tuple(texts), tuple(map(parse, texts)), FRAMES, progress=0.3)


def rate(work: Callable[[], object], n: int) -> float:
    """Completions per CPU second."""
    start = time.process_time()
    work()
    return n / (time.process_time() - start)


def measure(recipe: str, n: int, rounds: int, seed: int) -> dict[str, object]:
    graph = RewardGraph(load_config(RewardConfig, recipe_file("reward", recipe, "--reward")))
    rng = random.Random(seed)
    graph.score(group(sample("General video QA Free-form", rng), ["<answer>warm</answer>"]))  # imports rouge_score
    whole, terms, loaded, characters, words = [], [], [], [], []
    for _ in range(rounds):
        samples = [sample(task, rng) for task in list(ANSWERS) * (n // (GROUP * len(ANSWERS)))]
        unparsed = [(s, [completion(s.task, rng) for _ in range(GROUP)]) for s in samples]
        parsed = [group(s, [completion(s.task, rng) for _ in range(GROUP)]) for s in samples]
        texts = [text for _, completions in unparsed for text in completions]
        as_json = [json.dumps(text) for text in texts]
        whole.append(rate(lambda groups=unparsed: [graph.score(group(*g)) for g in groups], len(texts)))
        terms.append(rate(lambda views=parsed: [graph.score(view) for view in views], len(texts)))
        loaded.append(rate(lambda as_json=as_json: [json.loads(text) for text in as_json], len(texts)))
        characters += map(len, texts)
        words += [len(text.split()) for text in texts]
    return {
        "recipe": recipe,
        "completions": len(texts),
        "rounds": rounds,
        "characters_mean": round(statistics.mean(characters)),
        "words_mean": round(statistics.mean(words)),
        **figures("scored_per_s", whole),
        **figures("terms_per_s", terms),
        **figures("json_loads_per_s", loaded),
    }


def figures(name: str, rates: Sequence[float]) -> dict[str, object]:
    return {name: round(statistics.median(rates)), f"{name}_min_max": [round(min(rates)), round(max(rates))]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Completions per second scored by a reward recipe, next to json.loads."
    )
    parser.add_argument("--reward", default="open_o3", help="a recipe that needs no referee; default %(default)s")
    parser.add_argument("--completions", type=int, default=960, help="per round, all different; default %(default)s")
    parser.add_argument("--rounds", type=int, default=9, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--referee", metavar="FOLDER", help="measure a referee, too: see benchmarks/reward_referee.py")
    args = parser.parse_args()
    results = measure(args.reward, args.completions, args.rounds, args.seed)
    if args.referee:
        from benchmarks.reward_referee import measure_referee

        results |= measure_referee(args.referee, args.rounds, args.seed)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
