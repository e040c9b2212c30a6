"""The dataset's samples and the frames of the prompts that the page embeds.

Guarantees: frames are decoded by the code, the contract and the limits of training, and are shown only if their times
and size are those that were recorded; each frame is embedded once; whatever is missing gives a reason in place of
frames.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from evidence.errors import BadInput
from evidence.sampling import Selection, selection
from evidence.types import FrameInfo, Sample
from orchestration.run_report.entries import Entry
from orchestration.run_report.selection import spread_out
from orchestration.settings import TrainConfig
from rollout.dataset.media import decoded_frames
from rollout.dataset.mix import DataFile
from rollout.dataset.read import DatasetFile

MOST_FRAMES = 12  # embedded of a clip: those that claims cite, and others evenly spread
MOST_SIDE = 384  # pixels of an embedded frame
EXACT_SIDE = 128  # frames up to this size are stored without loss: they are small, and shown enlarged
QUALITY = 75


Clip = tuple[str, Selection]  # a media file, and what a sample selects of it
Place = tuple[Any, ...]  # of a dataset file: path, format, media root, and whether links are followed


@dataclass
class Samples:
    """Samples by id. problems: files that cannot be read, with the reason."""

    by_id: dict[str, Sample] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, other: Samples) -> None:
        """Where both have a sample of an id, it stays."""
        self.by_id = other.by_id | self.by_id
        self.problems += other.problems


@dataclass
class Wanted:
    """The samples that runs need of dataset files, each of which is read once for all of them."""

    _ids: dict[Place, set[str]] = field(default_factory=dict)

    def add(self, files: Iterable[DataFile], ids: set[str]) -> None:
        for file in files if ids else ():
            self._ids.setdefault(_place(file), set()).update(ids)

    def read(self) -> dict[Place, Samples]:
        return {place: _found(place, ids) for place, ids in self._ids.items()}


def of_files(read: Mapping[Place, Samples], files: Iterable[DataFile]) -> Samples:
    """What was read of these files."""
    samples = Samples()
    for file in files:
        samples.add(read.get(_place(file), Samples()))
    return samples


def _place(file: DataFile) -> Place:
    return file.path, file.format, file.media_root, file.follow_links


def _found(place: Place, ids: set[str]) -> Samples:
    """The file is read until all are found."""
    found = Samples()
    try:
        for sample in DatasetFile(*place):
            if sample.id in ids:
                found.by_id.setdefault(sample.id, sample)
            if len(found.by_id) == len(ids):
                break
    except (BadInput, OSError) as error:
        found.problems.append(str(error))
    return found


@dataclass(frozen=True)
class Encoded:
    """A decoded clip. uris: of some of its frames, as data URIs, by index."""

    info: FrameInfo
    uris: dict[int, str]


def clip_of(sample: Sample | None, config: TrainConfig | None) -> Clip | str:
    """What to decode for a prompt, or the reason why nothing can be."""
    if config is None:
        return "the run's configuration, and with it the way its frames were chosen, is not known"
    if sample is None:
        return "the dataset that names its video cannot be read, or no longer has this sample"
    if config.contract.multiple is None:
        return "contract.multiple is null in config.yaml: the size of the frames is not known"
    return sample.media_path, selection(sample, config.contract)


def encoded_clips(wanted: Mapping[Clip, Set[int]], config: TrainConfig) -> dict[Clip, Encoded | str]:
    """Each clip with its wanted frames, or the reason why it cannot be decoded."""
    encoded: dict[Clip, Encoded | str] = {}
    for clip, outcome in decoded_frames(list(wanted), config.contract, config.frames):
        if isinstance(outcome, str):
            encoded[clip] = f"{clip[0]}: {outcome}"
        else:
            frames, info = outcome
            places = [index for index in sorted(wanted[clip]) if index < len(frames)]
            encoded[clip] = Encoded(info, {index: data_uri(frames[index]) for index in places})
    return encoded


@dataclass
class Images:
    """The images of the page as data URIs, each once, and their bytes."""

    uris: list[str] = field(default_factory=list)
    bytes: int = 0
    _numbers: dict[str, int] = field(default_factory=dict)

    def of_entry(self, entry: Entry, clip: Encoded | str) -> tuple[dict[int, int], str | None]:
        """(number of the image by frame index, None), or ({}, the reason why there are no frames)."""
        if isinstance(clip, str):
            return {}, clip
        if clip.info.size != entry.size or not same_times(clip.info.times, entry.times):
            return {}, "its video now gives other frames than in training; the file has changed"
        return {index: self._number(clip.uris[index]) for index in embedded(entry)}, None

    def _number(self, uri: str) -> int:
        if uri not in self._numbers:
            self._numbers[uri] = len(self.uris)
            self.uris.append(uri)
            self.bytes += len(uri)
        return self._numbers[uri]


def same_times(times: Sequence[float], recorded: Sequence[float]) -> bool:
    return len(times) == len(recorded) and all(abs(a - b) < 0.01 for a, b in zip(times, recorded))


def embedded(entry: Entry) -> list[int]:
    """Indices of the frames to embed: all, or those that most claims cite, filled up evenly to MOST_FRAMES."""
    cited: Counter[int] = Counter()
    for completion in entry.completions:
        cited.update(completion.cited)
        cited.update(claim.frame for claim in completion.claims if claim.frame is not None)
    first = [frame for frame, _ in cited.most_common(MOST_FRAMES)]
    return sorted(list(dict.fromkeys([*first, *spread_out(len(entry.times))]))[:MOST_FRAMES])


def data_uri(frame: np.ndarray) -> str:
    """A frame, uint8 [H, W, 3], as a WebP image in a data URI."""
    image, file = Image.fromarray(frame), io.BytesIO()
    if max(image.size) <= EXACT_SIDE:
        image.save(file, "WEBP", lossless=True)
    else:
        image.thumbnail((MOST_SIDE, MOST_SIDE))
        image.save(file, "WEBP", quality=QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
