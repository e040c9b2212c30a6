"""`ser data show`: a page with samples of a dataset as a policy would see them.

Guarantees: bad input is reported before a file is decoded; the folder appears whole, and replaces only one that this
command wrote; a sample whose media cannot be read is on the page with the reason, and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from omegaconf import OmegaConf

from evidence.errors import BadInput, UnreadableMedia
from evidence.files import whole_folder
from evidence.sampling import resolved
from evidence.types import Sample
from orchestration.commands.data import with_progress
from orchestration.commands.run_files import policy_config
from orchestration.preflight import note_box_space, require_folder, require_tiles
from orchestration.showing.page import GENERATOR, page
from orchestration.showing.seen import Chosen, shown_samples
from orchestration.showing.shown import ShownSample, Source
from orchestration.streams import say
from orchestration.supervision.standalone_policy import StandalonePolicyConfig
from referee.terms.references import unscorable
from rollout.dataset.check import duplicates, problems, unreadable
from rollout.dataset.read import DatasetFile
from rollout.frames.decoding import identify
from rollout.prompt import ChatEncoder

INDEX = "index.html"
HEAD_BYTES = 2**10  # of a page; they name its generator


@dataclass(frozen=True)
class Choice:
    """Which samples are shown: the first `n`, or those called `ids`. faulty: only those in which faults are found."""

    n: int = 8
    ids: Sequence[str] | None = None
    faulty: bool = False

    def __post_init__(self) -> None:
        if self.n < 1:
            raise BadInput(f"--n {self.n}: must be 1 or more")


@dataclass(frozen=True)
class Place:
    """The folder of the page. A page that it holds already is replaced only with `overwrite`."""

    folder: Path
    overwrite: bool = False

    def require_writable(self) -> None:
        """Raises BadInput."""
        require_folder("--out", self.folder)
        if not self.folder.is_dir() or not any(self.folder.iterdir()):
            return
        if not _is_page(self.folder / INDEX):
            raise BadInput(f"--out {self.folder}: already holds other files; name a new folder")
        if not self.overwrite:
            raise BadInput(f"--out {self.folder}: exists already; name a new folder, or replace it with --overwrite")


def _is_page(index: Path) -> bool:
    if not index.is_file():
        return False
    with index.open("rb") as file:
        return GENERATOR.encode() in file.read(HEAD_BYTES)


def default_folder(dataset: Path) -> Path:
    return Path("runs/shown") / Path(dataset.name.removesuffix(".gz")).stem


def main(file: DatasetFile, choice: Choice, place: Place, config_file: Path | None, overrides: Sequence[str]) -> None:
    """Write the page. Raises BadInput, also if no sample can be read, once the page with the reasons is written."""
    place.require_writable()
    config, encoder = _policy(config_file, overrides)
    samples = list(file)
    chosen = choose(samples, choice, file.path)
    if not chosen:
        print(f"{file.path}: no faults are found in the samples; nothing is written")
        return
    with whole_folder(place.folder.resolve(), durable=False) as part:
        decoded = with_progress("decoding", shown_samples(chosen, config, encoder, part), len(chosen))
        shown = sorted(decoded, key=lambda sample: sample.place)
        source = Source(str(file.path), _described(len(shown), len(samples), choice), config.model, _settings(config))
        (part / INDEX).write_text(page(shown, source), encoding="utf-8")
    frames = sum(len(sample.seen.frames) for sample in shown if sample.seen is not None)
    print(f"{place.folder / INDEX}: {len(shown)} of {len(samples)} samples, {frames} frames")
    _report_unreadable(file.path, shown)


def _policy(config_file: Path | None, overrides: Sequence[str]) -> tuple[StandalonePolicyConfig, ChatEncoder]:
    """The config, with a resolved contract, and the encoder of its model."""
    if config_file is None and not any(text.startswith("model=") for text in overrides):
        raise BadInput(
            "--model: prompts are those of a model's tokenizer and family; name its folder, or a run's config with "
            "--config"
        )
    config = policy_config(config_file, list(overrides))
    encoder = ChatEncoder(config.model)
    config = replace(config, contract=resolved(config.contract, encoder.tile))
    note_box_space(encoder.family, config.template)
    require_tiles(encoder.tile, config.contract, "policy")
    return config, encoder


def choose(samples: Sequence[Sample], choice: Choice, path: Path) -> list[Chosen]:
    """The samples to show. Raises BadInput for an id that no sample has."""
    unknown = [name for name in choice.ids or () if all(sample.id != name for sample in samples)]
    if unknown:
        some = ", ".join(sample.id for sample in samples[:3])
        raise BadInput(f"--ids {unknown[0]}: no sample of {path} has this id; they are called {some}, …")
    repeated = set(duplicates(list(samples)))
    numbered = (Chosen(place, sample) for place, sample in enumerate(samples, 1))
    if choice.ids is not None:
        numbered = (chosen for chosen in numbered if chosen.sample.id in choice.ids)
    checked = (replace(chosen, faults=tuple(_faults(chosen.sample, repeated))) for chosen in numbered)
    if choice.faulty:
        checked = (chosen for chosen in checked if chosen.faults or problems(chosen.sample) or _is_unreadable(chosen))
    return list(checked if choice.ids is not None else islice(checked, choice.n))


def _faults(sample: Sample, repeated: set[str]) -> Iterator[str]:
    """What `ser data check` finds besides the `problems` of a sample alone."""
    if sample.id in repeated:
        yield "another sample has its id, or its question about the same media"
    if (reason := unscorable(sample)) is not None:
        yield f"no answer can be right: {reason}"


def _is_unreadable(chosen: Chosen) -> bool:
    try:
        identify(chosen.sample.media_path)
    except UnreadableMedia:
        return True
    return bool(unreadable([chosen.sample]))


def _described(shown: int, total: int, choice: Choice) -> str:
    how = "chosen by id" if choice.ids is not None else "in the file's order"
    return f"{shown:,} of {total:,} samples, {how}{', only those with faults' if choice.faulty else ''}"


def _settings(config: StandalonePolicyConfig) -> str:
    sections = {"contract": config.contract, "template": config.template}
    return OmegaConf.to_yaml(OmegaConf.create({name: OmegaConf.structured(part) for name, part in sections.items()}))


def _report_unreadable(path: Path, shown: Sequence[ShownSample]) -> None:
    """Raises BadInput if no sample can be read."""
    unreadable = [sample for sample in shown if sample.seen is None]
    if not unreadable:
        return
    first = unreadable[0]
    line = f"{path}: {len(unreadable)} of {len(shown)} samples cannot be read, the first is {first.sample.id!r:.60}: "
    line += f"{first.sample.media_path} {first.problems[0]}"
    if len(unreadable) == len(shown):
        raise BadInput(f"{line}; repair the files, or name their folder with --media-root")
    say(f"ser: {line}")
