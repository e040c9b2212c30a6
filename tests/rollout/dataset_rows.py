"""Rows of every dataset format as in their published files, and a function that writes rows to a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NOTHING = {"image_path": None, "image_size": None, "key_frames": None, "key_items": None}
OPEN_O3: list[dict[str, Any]] = [
    {
        "id": 0,
        "source": "TreeVGR",
        "task": "visual QA",
        "question": "Where is the cup left of the plate?",
        "answer": "<obj>cup</obj><box>[12, 40, 88, 130]</box>",
        "video_path": None,
        "image_path": "gqa/2354786.jpg",
        "image_size": [640, 480],
        "key_frames": None,
        "key_items": None,
        "reasoning_process": "<think>The <obj>cup</obj><box>[12,40,88,130]</box> …</think><answer>…</answer>",
    },
    {
        "id": 1,
        "source": "STR_plm_rdcap",
        "task": "temporal-spatial free-form QA",
        "question": "Who opens the door?",
        "answer": "A man in a red coat.",
        "video_path": "plm/sav_017599.mp4",
        "image_path": None,
        "image_size": [1280, 720],
        "key_frames": [{"idx": 48, "time": 2.0, "path": "plm/48.jpg"}, {"idx": 96, "time": 4.0, "path": None}],
        "key_items": {"48": {"man": [[0.1, 0.2, 0.3, 0.9]], "door": [[0.4, 0.1, 0.6, 0.9]]}, "96": {"man": None}},
        "reasoning_process": None,
    },
    {
        "id": 2,
        "source": "TVG_QVhighlight",
        "task": "temporal QA",
        "question": "When does the dog jump?",
        "answer": "[12.0, 20.5]",
        "video_path": "qv/a.mp4",
        **NOTHING,
    },
    {
        "id": 3,
        "source": "TVG_coin",
        "task": "temporal QA (MCQ)",
        "question": "What is cut, and when?\nA. wood\nB. bread",
        "answer": "B\n[3, 7.5]",
        "video_path": "coin/b.mp4",
        **NOTHING,
    },
    {
        "id": 4,
        "source": "videor1_mcq",
        "task": "General video QA MCQ",
        "question": "What rolls? A. ball B. box",
        "answer": "A",
        "video_path": "clevrer/c.mp4",
        **NOTHING,
    },
    {
        "id": 5,
        "source": "videor1_free_from",
        "task": "General video QA Free-form",
        "question": "What happens?",
        "answer": "A ball rolls.",
        "video_path": "clevrer/c.mp4",
        **NOTHING,
    },
]
VIDEO_R1: list[dict[str, Any]] = [
    {
        "problem_id": 2,
        "problem": "What appears on the screen in Russian during the missile's ascent?",
        "data_type": "video",
        "problem_type": "multiple choice",
        "options": ["A. A YouTube subscription notification", "B. A military command"],
        "solution": "<answer>A</answer>",
        "path": "./LLaVA-Video-178K/30_60_s/ytb_7nRmsEw7nsE.mp4",
        "data_source": "LLaVA-Video-178K/30_60_s_youtube_v0_1",
    },
    {
        "problem_id": 3,
        "problem": "How many bars are there?",
        "data_type": "image",
        "problem_type": "numerical",
        "options": [],
        "process": "<think>Four, five.</think>",
        "solution": "<answer>5</answer>",
        "path": "./Chart/a.png",
        "data_source": "Chart",
    },
]
EASY_VIDEO_R1: list[dict[str, Any]] = [
    {
        "problem": "<video>Where is the cat? Find it.",
        "answer": '<answer>{"time": [17.5, 18.5], "boxes": {"18": [440, 135, 493, 246]}}</answer>',
        "videos": ["stvg/10712559773.mp4"],
        "data_type": "video",
        "problem_type": "spatial-temporal grounding",
        "options": [],
    },
    {"problem": "<image>Read it.", "answer": "EXIT", "images": ["a.png"], "data_type": "image", "problem_type": "OCR"},
]
TIME_R1: list[dict[str, Any]] = [
    {
        "video": "./dataset/timer1/videos/timerft_data/QtWT8rxUuNk.mp4",
        "duration": 93.2932,
        "timestamp": [1.0, 4.0],
        "sentence": "A purple hanger demonstrates how to hang a sweater.",
        "qid": "my|cosmo|QtWT8rxUuNk|A purple hanger",
        "video_start": None,
        "video_end": None,
        "difficulty": 50.0,
        "pred": [0.0, 3.0],
    }
]
TVGBENCH: list[dict[str, Any]] = [
    {
        "path": "./dataset/timer1/videos/tvgbench_data/KWZSA.mp4",
        "question": "a person was sitting at a table.",
        "answer": "13.4-28.1",
        "start": None,
        "end": None,
        "duration": 30.12,
        "question_type": "video temporal grounding",
        "source": "Charades_sta_test.json",
        "dataset_name": "charades",
        "qsemtype": "Human Pose",
        "bins": {"videolen": 1},
    }
]
V_STAR: list[dict[str, Any]] = [
    {
        "vid": "3783730077",
        "domain": "Entertainment",
        "fps": 29.97,
        "width": 640,
        "height": 360,
        "frame_count": 963,
        "question": "What does the man play?",
        "chain": "<think>…<think>",
        "object": "guitar",
        "answer": "A guitar.",
        "temporal_question": "When does the man play the guitar?",
        "timestamps": [0.0, 2.1],
        "spatial_question": "Where is the guitar between 0 s and 2 s?",
        "spatial_question_2": "Where is the guitar?",
        "bboxes": [
            {"timestamp": 0.0, "frame_index": 0, "xmin": 227, "ymin": 126, "xmax": 304, "ymax": 180},
            {"timestamp": 1.0, "frame_index": 30, "xmin": 221, "ymin": 158, "xmax": 284, "ymax": 197},
        ],
    }
]
SER: list[dict[str, Any]] = [
    {"video": "clips/a.mp4", "task": "General video QA Free-form", "question": "What falls?", "answer": "A cup."},
    {
        "id": "mine-7",
        "source": "mine",
        "task": "General video QA MCQ",
        "question": "What falls?",
        "answer": "B",
        "options": ["A. a plate", "B. a cup"],
        "video": "clips/a.mp4",
        "duration": 12.5,
        "spans": [[3.0, 4.5]],
        "key_frames": [{"idx": "90", "time": 3.0}],
        "key_items": {"90": {"cup": [[0.4, 0.1, 0.5, 0.3]]}},
    },
]
ROWS = {
    "ser": SER,
    "open-o3": OPEN_O3,
    "video-r1": VIDEO_R1,
    "easyvideor1": EASY_VIDEO_R1,
    "time-r1": TIME_R1,
    "tvgbench": TVGBENCH,
    "v-star": V_STAR,
}


def write(folder: Path, rows: list[dict[str, Any]], name: str = "data.json") -> Path:
    file = folder / name
    file.write_text(json.dumps(rows))
    return file
