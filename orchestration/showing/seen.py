"""Decodes the media of samples, and writes the frames that a policy would be shown.

Guarantees: frames, their times and sizes, and prompts are made by the functions that make them in training, from the
same config; the images of frames hold the policy's pixels, without loss; each file is decoded once for all samples that
are shown the same frames of it, and its frames are in memory only while they are written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from evidence.drawing import Marked, enlarged
from evidence.sampling import Selection, selection
from evidence.types import FrameInfo, Prompt, Sample
from orchestration.answering.page_parts import colour
from orchestration.showing.labels import labels_of
from orchestration.showing.pieces import pieces_of
from orchestration.showing.shown import Seen, ShownFrame, ShownSample
from orchestration.supervision.standalone_policy import StandalonePolicyConfig
from rollout.dataset.check import problems
from rollout.dataset.media import decoded_frames
from rollout.prompt import ChatEncoder, build_prompt


@dataclass(frozen=True)
class Chosen:
    """A sample to show, and its place in the dataset from 1. faults: those that its dataset's check finds besides the
    `problems` of the sample alone."""

    place: int
    sample: Sample
    faults: tuple[str, ...] = ()


def shown_samples(
    chosen: Sequence[Chosen], config: StandalonePolicyConfig, encoder: ChatEncoder, folder: Path
) -> Iterator[ShownSample]:
    """Write the images of all samples below `folder`, and yield each sample, in the order in which files are decoded.

    config: with a resolved contract. encoder: of its model.
    """
    by_frames: dict[tuple[str, Selection], list[Chosen]] = defaultdict(list)
    for choice in chosen:
        by_frames[choice.sample.media_path, selection(choice.sample, config.contract)].append(choice)
    for wanted, outcome in decoded_frames(list(by_frames), config.contract, config.frames):
        if isinstance(outcome, str):
            for choice in by_frames[wanted]:
                faults = (f"cannot be read: {outcome}", *choice.faults, *problems(choice.sample))
                yield ShownSample(choice.place, choice.sample, faults, None)
            continue
        frames, info = outcome
        images = [f"frames/{info.key}/{number:03d}.png" for number in range(1, len(frames) + 1)]
        for frame, image in zip(frames, images):
            _write(frame, folder / image)
        for choice in by_frames[wanted]:
            yield _shown(choice, config, encoder, folder, frames, info, images)


def _shown(
    choice: Chosen,
    config: StandalonePolicyConfig,
    encoder: ChatEncoder,
    folder: Path,
    frames: np.ndarray,
    info: FrameInfo,
    images: Sequence[str],
) -> ShownSample:
    """The sample, with the images of its boxes written. images: those of its frames."""
    sample, labels = choice.sample, labels_of(choice.sample, info)
    prompt = build_prompt(encoder, config.template, sample, info)
    shown = []
    for place, (frame, boxes) in enumerate(zip(frames, labels.boxes)):
        marks = [Marked(box.box, colour(box.number), str(box.number)) for box in boxes]
        drawn = f"boxes/{choice.place}/{Path(images[place]).name}" if marks else None
        if drawn is not None:
            _write(enlarged(frame, marks), folder / drawn)
        shown.append(ShownFrame(info.times[place], images[place], drawn, boxes, labels.key_frames[place]))
    seen = Seen(
        info=info,
        frames=tuple(shown),
        not_shown=labels.not_shown,
        prompt=pieces_of(encoder, prompt),
        native_steps=None if prompt.video_times is None else int(prompt.grids[0, 0]),
    )
    faults = (*_too_long(prompt, config), *choice.faults, *problems(sample, info.duration))
    return ShownSample(choice.place, sample, faults, seen)


def _too_long(prompt: Prompt, config: StandalonePolicyConfig) -> Iterator[str]:
    length, most = len(prompt.token_ids), config.engine.max_model_len
    if length + config.max_tokens > most:
        yield (
            f"the prompt has {length:,} tokens, and with a completion of up to {config.max_tokens:,} exceeds the "
            f"context of {most:,}"
        )


def _write(picture: np.ndarray, path: Path) -> None:
    """Write a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
