"""Formats of Video-R1 (arXiv 2503.21776) and EasyVideoR1 (arXiv 2604.16893): a problem with type, options and solution.

The task of a sample is the row's `problem_type`. <answer> tags around an answer are removed.
"""

from __future__ import annotations

import json
import re
from typing import Any

from evidence.types import Sample
from rollout.dataset.row import Relative, Row, span

ANSWER = re.compile(r"\s*<answer>(.*)</answer>\s*", re.DOTALL)
# Marks where EasyVideoR1's loader inserts the media. Here frames always precede the question.
PLACEHOLDER = re.compile(r"(?:\s*<(?:video|image)>)+\s*")


def _answer(row: Row, key: str) -> str:
    text = row.answer(key)
    if not text:
        return ""
    tagged = ANSWER.fullmatch(text)
    answer = tagged[1].strip() if tagged else text
    if not answer:
        raise ValueError(f"the key '{key}' must hold an answer, not {text!r:.40}")
    return answer


def _grounded(answer: str) -> tuple[tuple[float, float], ...]:
    """The span of an answer of the form {"time": [start, end], …}, used by the grounding types."""
    if not answer.startswith("{"):
        return ()
    try:
        return (span(json.loads(answer)["time"], "time"),)
    except (KeyError, ValueError, RecursionError):
        return ()


def read_video_r1(row: Row) -> Sample:
    kind = row.text("data_type")
    if kind not in ("video", "image"):
        raise ValueError(f"the key 'data_type' must be video or image, not {kind!r:.40}")
    path, answer, process = row.media("path"), _answer(row, "solution"), row.optional_text("process")
    if path is None:
        raise KeyError("path")
    return Sample(
        id=_id(row),
        source=row.optional_text("data_source") or "unknown",
        task=row.text("problem_type"),
        question=row.text("problem"),
        answer=answer,
        video_path=path if kind == "video" else None,
        image_path=path if kind == "image" else None,
        reasoning=process + _conclusion(answer) if process and answer else None,
        options=row.texts("options"),
        spans=_grounded(answer),
    )


def write_video_r1(sample: Sample, relative: Relative) -> dict[str, Any]:
    process = sample.reasoning and sample.reasoning.removesuffix(_conclusion(sample.answer))
    return {
        "problem_id": sample.id,
        "problem": sample.question,
        "data_type": "video" if sample.video_path else "image",
        "problem_type": sample.task,
        "options": sample.options,
        **({"process": process} if process else {}),
        "solution": _conclusion(sample.answer) if sample.answer else None,
        "path": relative(sample.media_path),
        "data_source": sample.source,
    }


def _conclusion(answer: str) -> str:
    return f"<answer>{answer}</answer>"


def read_easy_video_r1(row: Row) -> Sample:
    videos, images = row.texts("videos"), row.texts("images")
    if len(videos) + len(images) != 1:
        raise ValueError(f"a sample shows one video or one image, not {len(videos)} videos and {len(images)} images")
    problem, answer = row.text("problem"), _answer(row, "answer")
    question = PLACEHOLDER.sub("", problem, count=1) if PLACEHOLDER.match(problem) else problem
    if not question.strip():
        raise ValueError(f"the key 'problem' must contain a question, not {problem!r:.40}")
    row.value("data_type")  # not needed: repeats which of videos and images is present
    return Sample(
        id=_id(row),
        source=row.optional_text("data_source") or "unknown",
        task=row.text("problem_type"),
        question=question,
        answer=answer,
        video_path=row.below_root(videos[0], "videos") if videos else None,
        image_path=row.below_root(images[0], "images") if images else None,
        options=row.texts("options"),
        spans=_grounded(answer),
    )


def write_easy_video_r1(sample: Sample, relative: Relative) -> dict[str, Any]:
    kind = "video" if sample.video_path else "image"
    return {
        "problem_id": sample.id,
        "problem": f"<{kind}>{sample.question}",
        "answer": sample.answer or None,
        f"{kind}s": [relative(sample.media_path)],
        "data_type": kind,
        "problem_type": sample.task,
        "options": sample.options,
        "data_source": sample.source,
    }


def _id(row: Row) -> str:
    return row.id("problem_id")
