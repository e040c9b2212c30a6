"""V-STaR's questions with teacher forcing: later questions of a chain are told the truth about the earlier ones. Pure.

"What" is asked once for both chains. Chain 1 asks when, told the video's length, and then where, told the true whole
seconds. Chain 2 asks where, told only how many boxes there are, and then when, told the resolution and all true boxes
without their times. The wording is ours; what each question is told is the benchmark's.
"""

from __future__ import annotations

import math
from typing import Any

from evaluation.vstar.answers import boxes_in, tagged_answer, times_in
from rollout.dataset.vstar import SIDES

INTERVAL_FORM = 'Give the start and the end in seconds, such as "12.5 to 18.0".'
BOXES_FORM = (
    "Answer with a JSON object that maps each whole second, as text, to a box [x1, y1, x2, y2], such as "
    '{{"{}": [x1, y1, x2, y2]}}.'
)


def questions(row: dict[str, Any]) -> dict[str, str]:
    """The texts of the five questions of an annotated sample: what, when, where, where_2, when_2."""
    start, end = row["timestamps"]
    seconds = list(range(math.ceil(start), math.floor(end) + 1))
    boxes = [[box[side] for side in SIDES] for box in row["bboxes"]]
    length = f"The video is {row['frame_count'] / row['fps']:.2f} seconds long"
    first = BOXES_FORM.format(seconds[0] if seconds else 0)
    return {
        "what": f"{row['question']}\nIf the answer is a person, there is no need to identify them.",
        "when": f"{length}.\n{row['temporal_question']}\n{INTERVAL_FORM}",
        "where": f"{row['spatial_question']}\nGive one box for each of these seconds: {seconds}.\n{first}",
        "where_2": (
            f"{row['spatial_question_2']}\nGive exactly {len(boxes)} boxes, for the seconds that the question is "
            f"about and no others; find these seconds yourself.\n{BOXES_FORM.format(0)}"
        ),
        "when_2": (
            f"{length}, with a resolution of {row['width']}x{row['height']} (width x height).\n"
            f"{row['temporal_question']}\nThese {len(boxes)} boxes show the object that the question is about, without "
            f"their times: {boxes}.\n{INTERVAL_FORM}"
        ),
    }


def result(row: dict[str, Any], texts: dict[str, str], frame_size: tuple[int, int]) -> dict[str, Any]:
    """The row of a result file in the official shape: the annotation with the answers in `texts`, by question.

    frame_size: (width, height) of the frames that the model saw, in whose pixels its boxes are; kept as `input_shape`.
    """
    return row | {
        "answer_vqa": tagged_answer(texts["what"]),
        "answer_temporal_pre": texts["when"],
        "answer_temporal": times_in(tagged_answer(texts["when"])),
        "answer_spatial_pre": texts["where"],
        "answer_spatial": boxes_in(tagged_answer(texts["where"])),
        "answer_spatial_pre_2": texts["where_2"],
        "answer_spatial_2": boxes_in(tagged_answer(texts["where_2"])),
        "answer_temporal_pre_2": texts["when_2"],
        "answer_temporal_2": times_in(tagged_answer(texts["when_2"])),
        "input_shape": list(frame_size),
    }
