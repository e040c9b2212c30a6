"""The embedded world: short clips of coloured shapes, with questions that can only be answered by looking at the right
shape at the right time.

Each clip shows one to three shapes of different colours. Each drifts slowly over a textured background whose colours
vary with x and y, and is visible for a part of the clip only; about a third cross into another quadrant. A question
asks where one shape is at one sampled moment; the answer is a quadrant. All randomness comes from the seed: equal
arguments give equal files. Every split draws its clips from its own seed, so no clip is in two splits.

The dataset is written in the JSON of Open-o3-Video (domain.md section 2). `key_items` lists every visible shape at
every sampled frame with its true box. `reasoning_process` holds claims with boxes in pixels of the resized frame, drawn
as by a hurried annotator: from the top left corner of the shape to a point beyond its opposite corner. A policy trained
on them can improve under a referee that rewards tight boxes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from evidence.errors import BadInput
from evidence.files import FORK_SERVER, require_room_for_sockets, whole_folder
from evidence.geometry import convert
from evidence.types import NORMALISED, Box, BoxSpace

SIDE = 112  # pixels of the written clip
FRAME_SIDE = 56  # pixels of the frame that the policy sees
FRAME_SPACE = BoxSpace(FRAME_SIDE, FRAME_SIDE)  # the space of its boxes
FPS = 4
FRAMES = 29  # so that 8 uniformly spaced frames are at whole seconds
MOMENTS = 8
DURATION = FRAMES / FPS
# Frames per second, and number of frames, of some clips: 8 uniformly spaced frames are within 0.04 s of whole seconds.
# The last begins just before 7 s, which is where the first two videos end: at 6.990 and 6.983 s.
RATES = ((60_000 / 1001, 419), (60.0, 419), (30_000 / 1001, 210), (24.0, 168))
RATE_EVERY, RATE_AT = 32, 5  # clips number 5, 37, 69, … have one of RATES: writing them takes up to 5 times as long
COLOURS = {
    "red": (225, 30, 30),
    "green": (30, 190, 40),
    "blue": (35, 60, 230),
    "yellow": (240, 225, 40),
    "cyan": (40, 220, 225),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle")
SPLITS = ("train", "val", "test")
# How far a box in `reasoning_process` extends beyond the shape, in sides of the shape: mean, standard deviation. Only
# to the right and below: the left edge is the token that chooses between two shapes, and a policy that learnt to move
# it right everywhere would choose the shape further right.
OVERSHOOT = (0.3, 0.12)


@dataclass(frozen=True)
class Shape:
    """One shape. centres: [FRAMES, 2], in pixels of SIDE. It is visible from moment `first` to `last`, inclusive."""

    colour: str
    form: str
    half: float
    centres: np.ndarray
    first: int
    last: int

    @property
    def phrase(self) -> str:
        return f"{self.colour} {self.form}"

    def box(self, moment: int) -> Box:
        """The normalised box at a sampled moment."""
        x, y = self.centres[moment * FPS]
        edges = np.array([x - self.half, y - self.half, x + self.half, y + self.half])
        left, top, right, bottom = (float(round(edge, 4)) for edge in edges / SIDE)
        return left, top, right, bottom

    def visible(self, moment: int) -> bool:
        return self.first <= moment <= self.last


def draw_shapes(rng: np.random.Generator, least: int = 4, most: int = MOMENTS) -> list[Shape]:
    """One to three shapes that never cover each other's centres at a sampled moment, each visible for `least` to `most`
    moments."""
    count = int(rng.integers(1, 4))
    colours = rng.permutation(list(COLOURS))[:count]
    shapes: list[Shape] = []
    while len(shapes) < count:
        half = float(rng.uniform(15, 25))
        low, high = half + 1, SIDE - half - 1
        start = rng.uniform(low, high, 2)
        reach = SIDE / 2 if rng.random() < 1 / 3 else 8
        end = np.clip(start + rng.uniform(-reach, reach, 2), low, high)
        centres = start + np.linspace(0, 1, FRAMES)[:, None] * (end - start)
        length = int(rng.integers(least, most + 1))
        first = int(rng.integers(0, MOMENTS - length + 1))
        shape = Shape(str(colours[len(shapes)]), str(rng.choice(SHAPES)), half, centres, first, first + length - 1)
        clear = all(np.abs(centres - other.centres).max(axis=1).min() > half + other.half - 4 for other in shapes)
        if clear:
            shapes.append(shape)
        elif rng.random() < 0.02:  # crowded: start again rather than search for the last gap
            shapes.clear()
    return shapes


def background(rng: np.random.Generator) -> np.ndarray:
    """uint8 [SIDE, SIDE, 3]: red grows with x and green with y, so that colour shows position, plus a soft texture."""
    axis = np.linspace(0, 1, SIDE)
    plane = np.stack(np.broadcast_arrays(60 + 80 * axis[None, :], 60 + 80 * axis[:, None], 100.0), axis=-1)
    texture = cv2.resize(rng.normal(0, 12, (14, 14, 3)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return np.clip(plane + texture + rng.normal(0, 3, plane.shape), 0, 255).astype(np.uint8)


def draw_form(image: np.ndarray, shape: Shape, frame: int) -> None:
    """Draw the shape with positions in 1/16 pixel, so that slow drift is smooth."""
    x, y = shape.centres[frame]
    half, colour = shape.half, COLOURS[shape.colour]

    def fixed(*values: float) -> tuple[int, ...]:
        return tuple(round(v * 16) for v in values)

    if shape.form == "circle":
        cv2.circle(image, fixed(x, y), round(half * 16), colour, -1, cv2.LINE_AA, 4)
    elif shape.form == "square":
        cv2.rectangle(image, fixed(x - half, y - half), fixed(x + half, y + half), colour, -1, cv2.LINE_AA, 4)
    else:
        corners = np.array([fixed(x, y - half), fixed(x + half, y + half), fixed(x - half, y + half)], np.int32)
        cv2.fillPoly(image, [corners], colour, cv2.LINE_AA, 4)


def rate_of(number: int) -> tuple[float, int]:
    """Frames per second and number of frames of clip `number`. Drawn from no generator, so that all clips show what
    they would show at 4 frames per second."""
    turn, place = divmod(number, RATE_EVERY)
    return RATES[turn % len(RATES)] if place == RATE_AT else (float(FPS), FRAMES)


def write_clip(path: Path, shapes: list[Shape], rng: np.random.Generator, fps: float, frames: int) -> None:
    """Write the clip with `frames` frames at `fps` frames per second, each the nearest of the FRAMES pictures."""
    scene = background(rng)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (SIDE, SIDE))
    if not writer.isOpened():
        raise OSError(errno.EIO, "no video can be opened for writing; is the disk full?", str(path))
    pictures = []
    for picture in range(FRAMES):
        image = scene.copy()
        moment = picture / FPS
        for shape in shapes:
            if shape.first - 0.5 < moment < shape.last + 0.5:
                draw_form(image, shape, picture)
        pictures.append(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    for frame in range(frames):
        writer.write(pictures[round(frame / fps * FPS)])
    writer.release()
    if not whole_mp4(path.read_bytes()):  # the writer reports no error: not of a full disk, nor of a file-size limit
        raise OSError(errno.ENOSPC, "not written whole; is the disk full?", str(path))


def whole_mp4(data: bytes) -> bool:
    """Whether the top-level boxes of an MP4 file fill it, the index (`moov`, written last) included."""
    kinds, at = set(), 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size < 8:
            return False
        kinds.add(data[at + 4 : at + 8])
        at += size
    return at == len(data) and b"moov" in kinds


def quadrant(shape: Shape, moment: int) -> str:
    x, y = shape.centres[moment * FPS]
    return f"{'top' if y < SIDE / 2 else 'bottom'} {'left' if x < SIDE / 2 else 'right'}"


def clearly_placed(shape: Shape, moment: int) -> bool:
    """Whether the answer is unambiguous: the centre is not near a line between quadrants."""
    return bool(np.abs(shape.centres[moment * FPS] - SIDE / 2).min() > 5)


def hurried(box: Box, rng: np.random.Generator) -> Box:
    """The normalised box with its right and lower edges moved out at random (OVERSHOOT), clipped to the frame."""
    x1, y1, x2, y2 = box
    right, down = rng.normal(*OVERSHOOT, 2) * (x2 - x1)
    return (x1, y1, float(min(x2 + right, 1)), float(min(y2 + down, 1)))


def reasoning(shape: Shape, asked: int, rng: np.random.Generator) -> str:
    """One to three claims about the asked shape: first at the asked moment, then at others at which it is visible."""
    hand = rng.spawn(1)[0]
    others = [m for m in range(shape.first, shape.last + 1) if m != asked]
    extra = int(rng.choice([0, 1, 2], p=[0.25, 0.55, 0.2]))
    moments = [asked, *sorted(rng.permutation(others)[:extra].tolist())]
    claims = []
    for moment in moments:
        drawn = convert(hurried(shape.box(moment), hand), NORMALISED, FRAME_SPACE)
        box = ",".join(str(round(v)) for v in drawn)
        claims.append(f"<obj>{shape.phrase}</obj><box>[{box}]</box>at<t>{moment:.1f}</t>s")
    return "I see " + " and ".join(claims)


def questions(
    name: str, video: str, shapes: list[Shape], count: int, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """Up to `count` samples about one clip, each about a different (shape, moment)."""
    candidates = [(s, m) for s in shapes for m in range(MOMENTS) if s.visible(m) and clearly_placed(s, m)]
    key_items = {str(m * FPS): {s.phrase: [list(s.box(m))] for s in shapes if s.visible(m)} for m in range(MOMENTS)}
    for k, pick in enumerate(rng.permutation(len(candidates))[:count]):
        shape, moment = candidates[pick]
        yield {
            "id": f"{name}-{k}",
            "source": "shapes",
            "task": "temporal-spatial free-form QA",
            "question": f"Where is the {shape.phrase} at {moment:.1f} s?",
            "answer": quadrant(shape, moment),
            "video_path": video,
            "image_path": None,
            "image_size": [SIDE, SIDE],
            "key_frames": [{"idx": m * FPS, "time": float(m), "path": None} for m in range(MOMENTS)],
            "key_items": key_items,
            "reasoning_process": f"<think>{reasoning(shape, moment, rng)}</think>"
            f"<answer>{quadrant(shape, moment)}</answer>",
        }


Rows = list[dict[str, Any]]
# (folder, split, number of the clip, seed, most questions): write one clip and return the rows about it.
MakeClip = Callable[[tuple[Path, str, int, int, int]], Rows]


def _make_clip(job: tuple[Path, str, int, int, int]) -> Rows:
    """A clip without an unambiguous question is drawn again."""
    out, split, number, seed, count = job
    cv2.setNumThreads(1)
    rng = np.random.default_rng([seed, SPLITS.index(split), number])
    name = f"{split}-{number:06d}"
    video = f"videos/{split}/{number // 1000:03d}/{name}.mp4"
    while True:
        shapes = draw_shapes(rng)
        samples = list(questions(name, video, shapes, count, rng))
        if samples:
            write_clip(out / video, shapes, rng, *rate_of(number))
            return samples


def make_shapes(
    out: Path,
    train: int = 2000,
    val: int = 256,
    test: int = 512,
    questions: int = 4,
    seed: int = 0,
    workers: int = 2,
    progress: Callable[[str, int, int], None] = lambda split, done, total: None,
) -> dict[str, int]:
    """Write `train`, `val` and `test` clips below `out`, with one JSON list per split. Returns the number of samples of
    each split.

    Training clips have `questions` questions each, all other clips one. For a curriculum, `train_le1.json` and
    `train_le2.json` list the training samples whose clips have at most one and at most two shapes. The folder is
    written whole or not at all. Raises BadInput if `out` exists or a number is out of range.
    """
    sizes = {"train": train, "val": val, "test": test}
    with written_world(out, sizes, questions, seed, workers, _make_clip, progress) as (part, rows):
        samples = rows["train"]
        for most in (1, 2):
            few = [s for s in samples if len({p for items in s["key_items"].values() for p in items}) <= most]
            (part / f"train_le{most}.json").write_text(json.dumps(few), encoding="utf-8")
    return {split: len(samples) for split, samples in rows.items()}


@contextlib.contextmanager
def written_world(
    out: Path,
    sizes: dict[str, int],
    questions: int,
    seed: int,
    workers: int,
    make_clip: MakeClip,
    progress: Callable[[str, int, int], None],
) -> Iterator[tuple[Path, dict[str, Rows]]]:
    """Write a number of clips of each split below `out`, with a JSON list of its rows. Gives the folder, which becomes
    `out` at the end, and the rows by split.

    Training clips have at most `questions` rows each, all other clips one. Raises BadInput if `out` exists or a number
    is out of range.
    """
    if out.exists():
        raise BadInput(f"make-shapes: {out} exists already; name a new folder or remove it")
    if min(sizes.values()) < 0 or not any(sizes.values()) or questions < 1:
        raise BadInput("make-shapes: sizes must be 0 or more, one of them above 0, and questions at least 1")
    if seed < 0 or workers < 1:
        raise BadInput(f"make-shapes: seed = {seed}, workers = {workers}: seed must be 0 or more, workers at least 1")
    require_room_for_sockets(FORK_SERVER)
    rows: dict[str, Rows] = {}
    # Not forked from this process: with threads, as in a Ray driver, a fork can deadlock on their locks.
    processes = ProcessPoolExecutor(workers, multiprocessing.get_context("forkserver"))
    with whole_folder(out, durable=False) as part, processes as pool:  # thousands of files, which can be made again
        for split, clips in sizes.items():
            for thousand in range(0, clips, 1000):
                (part / f"videos/{split}/{thousand // 1000:03d}").mkdir(parents=True)
            per_clip = questions if split == "train" else 1
            jobs = ((part, split, number, seed, per_clip) for number in range(clips))
            rows[split] = []
            for done, clip_rows in enumerate(pool.map(make_clip, jobs, chunksize=16), 1):
                rows[split].extend(clip_rows)
                progress(split, done, clips)
            (part / f"{split}.json").write_text(json.dumps(rows[split]), encoding="utf-8")
        yield part, rows
