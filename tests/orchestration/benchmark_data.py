"""A small dataset of each benchmark in the form in which its authors publish it, about clips of the embedded world."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

QUESTION = "Where is the red circle at 3.0 s?"
PLACES = ["top left", "top right", "bottom left", "bottom right"]
LETTERED = [f"{letter}. {place}" for letter, place in zip("ABCD", PLACES)]
Rows = list[dict[str, Any]]


def videomme(name: str) -> Rows:
    row = {"duration": "short", "domain": "Shapes", "task_type": "Spatial", "question": QUESTION, "answer": "B"}
    return [row | {"videoID": name, "question_id": f"001-{n}", "options": LETTERED} for n in (1, 2)]


def worldsense(name: str) -> Rows:
    row = {"index": 7, "video": name, "question": QUESTION, "candidates": str(LETTERED), "answer": "B"}
    return [row | {"domain": "Music", "task_type": "Sound", "duration": "1-2min", "audio_class": "['Music']"}]


def perception_test(name: str) -> Rows:
    return [{"video_name": name, "question_id": 3, "question": QUESTION, "options": PLACES[:3], "answer_id": 1}]


def lvbench(name: str) -> Rows:
    options = "\n".join(f"({letter}) {place}" for letter, place in zip("ABCD", PLACES))
    question = {"uid": "28", "question": f"{QUESTION}\n{options}", "answer": "B", "question_type": ["recall"]}
    return [{"key": name, "qa": [question]}]


def longvideobench(name: str) -> Rows:
    row = {"id": f"{name}_0", "video_id": name, "video_path": f"{name}.mp4", "question": QUESTION}
    row |= {"candidates": PLACES, "correct_choice": 1, "duration_group": 15, "question_category": "S2E"}
    return [row | {"subtitle_path": f"{name}_en.json", "starting_timestamp_for_subtitles": 0, "duration": 7.25}]


def mvbench(name: str) -> Rows:
    row = {"video": f"{name}.mp4", "question": QUESTION, "candidates": PLACES, "answer": PLACES[1]}
    return [row, row | {"start": 2.0, "end": 5.0}]


def tempcompass(name: str) -> Rows:
    row = {"video_id": name, "dim": "direction"}
    options = "\n".join(LETTERED)
    return [
        row | {"question": f"{QUESTION}\n{options}", "answer": LETTERED[1]},
        row | {"question": "Is the red circle at the top?", "answer": "yes"},
        row | {"question": "Describe it.", "mc_question": f"{QUESTION}\n{options}", "mc_answer": LETTERED[1]},
    ]


def vsi_bench(name: str) -> Rows:
    row = {"dataset": "shapes", "scene_name": name}
    counting = {"id": 0, "question": "How many?", "question_type": "object_counting", "ground_truth": "4"}
    order = {"id": 1, "question": "Which?", "question_type": "route_planning", "ground_truth": "B", "options": LETTERED}
    return [row | {"options": None} | counting, row | order]


def videommmu(name: str) -> Rows:
    row = {"id": name, "question": QUESTION, "question_type": "multiple-choice", "answer": "B", "options": PLACES}
    return [row | {"track": "Adaptation"}, row | {"track": "Perception", "question_type": "open", "answer": "2.5"}]


def tvgbench(name: str) -> Rows:
    return [{"path": f"videos/{name}.mp4", "question": "a circle moves.", "answer": "1.0-4.0", "duration": 7.25}]


def vstar(name: str) -> Rows:
    row = {"vid": name, "domain": "Shapes", "fps": 4, "width": 112, "height": 112, "frame_count": 29}
    row |= {"question": QUESTION, "answer": "top left", "temporal_question": "When?", "timestamps": [1.0, 3.0]}
    box = {"frame_index": 8, "xmin": 5, "ymin": 5, "xmax": 40, "ymax": 40}
    row |= {"spatial_question": "Where is it then?", "spatial_question_2": "Where is it?"}
    return [row | {"bboxes": [box | {"timestamp": second} for second in (1, 2, 3)]}]


# Benchmark -> (its rows about a clip of that name, the clip's place below the data's folder).
MADE: dict[str, tuple[Callable[[str], Rows], str]] = {
    "videomme": (videomme, "data/{}.mp4"),
    "worldsense": (worldsense, "videos/{}.mp4"),
    "perception_test": (perception_test, "{}.mp4"),
    "lvbench": (lvbench, "videos/{}.mp4"),
    "longvideobench": (longvideobench, "videos/{}.mp4"),
    "mvbench": (mvbench, "video/star/{}.mp4"),
    "tempcompass": (tempcompass, "videos/{}.mp4"),
    "vsi_bench": (vsi_bench, "shapes/{}.mp4"),
    "videommmu": (videommmu, "Art/{}.mp4"),
    "tvgbench": (tvgbench, "videos/{}.mp4"),
    "vstar": (vstar, "videos/{}.mp4"),
}


def make(name: str, folder: Path, clip: Path) -> Path:
    """Write the dataset of a benchmark into `folder`; returns the annotation's path."""
    rows, place = MADE[name]
    video = folder / place.format("clip_1")
    video.parent.mkdir(parents=True)
    shutil.copy(clip, video)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(rows("clip_1")))
    return path
