"""Reward terms: pure functions that map a group's completions to one number each (docs/reward.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from referee.terms import answers, form, judge, open_o3, rler, shaping, temporal, video_r1

# Recipe name -> term.
BUILTIN: dict[str, Callable[..., Any]] = {
    "accuracy": answers.accuracy,
    "choice": answers.term_of(answers.choice),
    "exact": answers.term_of(answers.exact),
    "numeric": answers.term_of(answers.numeric),
    "ocr": answers.term_of(answers.ocr),
    "regression": answers.term_of(answers.mean_relative_accuracy),
    "closeness": answers.term_of(answers.closeness),
    "rouge": answers.term_of(answers.rouge),
    "box_iou": answers.answered_box,
    "ans_acc": open_o3.ans_acc,
    "ans_tiou": open_o3.ans_tiou,
    "ans_viou": open_o3.ans_viou,
    "open_o3_format": open_o3.open_o3_format,
    "thk_temporal_segment": open_o3.thk_temporal_segment,
    "thk_temporal_point": open_o3.thk_temporal_point,
    "thk_spatial": open_o3.thk_spatial,
    "claim_format": form.claim_format,
    "rler_format": rler.rler_format,
    "frame_sensitive": rler.frame_sensitive,
    "think_transparency": rler.think_transparency,
    "anti_repetition": rler.anti_repetition,
    "temporal_iou": temporal.temporal_iou,
    "temporal_iou_boundary": temporal.temporal_iou_boundary,
    "temporal_iou_multi": temporal.temporal_iou_multi,
    "video_r1_format": video_r1.video_r1_format,
    "t_grpo": video_r1.t_grpo,
    "length_window": video_r1.length_window,
    "overlong": shaping.overlong,
    "text_judge": judge.text_judge,
}
