"""`ser answer`: the answer to one question about a video, with its evidence, and a page that shows it.

Guarantees: bad input is reported before an engine starts, the video's content included; the page appears whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evidence.errors import BadInput, UnreadableMedia
from evidence.plain import dumps
from orchestration.answering.answerer import Answerer, Asked, check_answering, gpus, running_answerer
from orchestration.answering.answers import Answered
from orchestration.answering.page import Source, page
from orchestration.answering.question import require_question
from orchestration.answering.report import evidence_of, lines
from orchestration.answering.settings import AnswerConfig, load, method_of
from orchestration.commands.score import Output
from orchestration.supervision.cluster import start_ray
from orchestration.supervision.standalone_policy import TooLong
from rollout.dataset.media import decoded
from rollout.frames.decoding import identify
from rollout.prompt import ChatEncoder


@dataclass(frozen=True)
class Command:
    """The arguments of `ser answer`. elect: an election's method, None for a single answer. fps: the frame rate of a
    folder of frames."""

    video: str
    question: str
    elect: str | None
    out: Output
    as_json: bool
    fps: float | None = None


def main(command: Command, config_file: Path | None, overrides: Sequence[str]) -> None:
    """Print the answer and write its page. Raises BadInput."""
    require_question(command.question)
    if command.out.path is not None or command.out.overwrite:
        command.out.require_writable()
    config = load(config_file, overrides)
    if command.elect is not None:
        method_of(config, command.elect)
    config, encoder = check_answering(config)
    require_readable(command.video, config, command.fps)
    answered, frames = asyncio.run(_answered(command, config, encoder))
    if command.out.path is not None:
        judge = Path(config.judge.model).resolve().name if config.judge else ""
        source = Source(Path(command.video).name, Path(config.model).resolve().name, judge)
        command.out.write([page(answered, frames, source)])
    if command.as_json:
        reply = answered.replies[0]
        print(dumps({"text": reply.text, **evidence_of(answered, reply)}, places=4, ensure_ascii=False))
    else:
        print("\n".join(lines(answered)))


def require_readable(path: str, config: AnswerConfig, fps: float | None = None) -> None:
    """Raises BadInput for a file that is missing, too large, or neither a video nor an image, and for a folder of
    frames without `fps`."""
    try:
        _, size, *_ = identify(path)
    except UnreadableMedia as error:
        raise BadInput(str(error)) from None
    if size > config.file_gib * 2**30:
        raise BadInput(f"{path}: has {size / 2**30:.1f} GiB, more than file_gib = {config.file_gib:g}; raise it")
    frames = config.frames
    for _, outcome in decoded({path: fps}, config.contract, 1, frames.timeout_s, frames.worker_bytes):
        if isinstance(outcome, str):
            raise BadInput(f"{path}: cannot be read as a video or an image ({outcome})")


async def _answered(
    command: Command, config: AnswerConfig, encoder: ChatEncoder
) -> tuple[Answered, dict[int, np.ndarray]]:
    with start_ray(config.cluster.object_store_gib, gpus(config)):
        async with running_answerer(config, encoder) as answerer:
            asked = Asked(
                question=command.question,
                path=command.video,
                fps=command.fps,
                temperature=config.temperature,
                seed=config.seed,
                method=command.elect,
            )
            return await answer_with_frames(answerer, asked)


async def answer_with_frames(answerer: Answerer, asked: Asked) -> tuple[Answered, dict[int, np.ndarray]]:
    """The answer, and the frames that it cites, by number. Raises BadInput."""
    try:
        with await answerer.lease(asked) as lease:
            answered = await answerer.answer(asked, lease)
            frames = await lease.frames
            return answered, {number: frames[number].copy() for number in answered.replies[0].frames}
    except (UnreadableMedia, TooLong) as error:
        raise BadInput(str(error)) from None
