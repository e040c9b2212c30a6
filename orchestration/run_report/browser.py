"""The content of the evidence browser: reads the samples of the runs, chooses prompts, and finds their frames.

samples.jsonl is read twice and never held: once for what the choice depends on, once for the chosen groups.
Guarantee: without a limit by the caller, texts and frames stay below MOST_BYTES, and the page says what was left out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from evidence.plain import dumps
from evidence.types import Sample
from evidence.visible import visible
from orchestration.reporting.heldout_records import DRAWS
from orchestration.run_report.clips import (
    Clip,
    Encoded,
    Images,
    Place,
    Samples,
    Wanted,
    clip_of,
    embedded,
    encoded_clips,
    of_files,
)
from orchestration.run_report.entries import HELDOUT, TRAINING, Entry, heldout_entry, training_entry
from orchestration.run_report.recorded import SAMPLES, Group, Run, counted
from orchestration.run_report.selection import Facts, Key, chosen, count_by_reason, rankings

DEFAULT_PROMPTS = 48
MOST_BYTES = 16 * 2**20  # of texts and frames, of a page that should stay below 20 MB
PLACES = 4  # decimals of numbers


@dataclass
class Browser:
    """entries: as plain data for the page, each with `frames` (image by frame index) and `missing`, the reason why it
    has none. images: data URIs. recorded: prompts and held-out completions on disk. reasons: entries by the reason for
    which they were chosen. left_out: chosen ones for which the page had no room. notes: by run."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    recorded: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    left_out: int = 0
    notes: list[list[str]] = field(default_factory=list)


def browse(runs: Sequence[Run], most: int | None) -> Browser:
    """most: prompts to embed, whatever the page's size; None takes DEFAULT_PROMPTS within MOST_BYTES."""
    wanted = Wanted()
    for run in runs:
        if run.config is not None:
            wanted.add(run.config.data.train, {group.sample for group in run.groups()})
            clips = {record.clip for records in run.heldout.values() for record in records}
            wanted.add([run.config.data.heldout], clips)
    read = wanted.read()
    datasets = [_Datasets(run, read) for run in runs]
    training = [list(data.training_facts(number)) for number, data in enumerate(datasets)]
    heldout = [list(_heldout_facts(number, run)) for number, run in enumerate(runs)]
    ranked = rankings(training, heldout)
    taken = chosen(ranked, DEFAULT_PROMPTS if most is None else most)
    browser, images, used = Browser(recorded=sum(map(len, [*training, *heldout]))), Images(), 0
    shown: dict[Key, str] = {}
    spreads = {facts.key: facts.spread for run in heldout for facts in run}
    # A run that is resumed meanwhile, and repeats a step, lacks its group.
    entries = {found[0]: found for number, data in enumerate(datasets) for found in data.entries(number, taken)}
    pictures = _clips(runs, entries.values())
    for key in filter(entries.__contains__, taken):
        entry = entries[key][1]
        frames, missing = images.of_entry(entry, pictures[key])
        entry = replace(entry, why=taken[key], spread=spreads.get(key, entry.spread))
        content = asdict(entry) | {"frames": frames, "missing": missing and visible(missing)}
        used += len(dumps(content, PLACES))
        if most is None and browser.entries and used + images.bytes > MOST_BYTES:
            browser.left_out = len(taken) - len(shown)
            break
        browser.entries.append(content)
        shown[key] = taken[key]
    browser.entries.sort(key=lambda entry: (entry["kind"] == HELDOUT, entry["step"], entry["sample"], entry["run"]))
    browser.images, browser.reasons = images.uris, count_by_reason(shown)
    browser.notes = [data.notes() for data in datasets]
    return browser


def _clips(runs: Sequence[Run], found: Collection[tuple[Key, Entry, Sample | None]]) -> dict[Key, Encoded | str]:
    """The clip of each entry with the frames to embed, or why it is not shown. Each run decodes a clip once."""
    clips = {key: clip_of(sample, runs[key.run].config) for key, _, sample in found}
    decoded: dict[int, dict[Clip, Encoded | str]] = {}
    for number, run in enumerate(runs):
        wanted: dict[Clip, set[int]] = {}
        for key, entry, _ in found:
            clip = clips[key]
            if key.run == number and not isinstance(clip, str):
                wanted.setdefault(clip, set()).update(embedded(entry))
        decoded[number] = encoded_clips(wanted, run.config) if run.config and wanted else {}
    return {key: clip if isinstance(clip, str) else decoded[key.run][clip] for key, clip in clips.items()}


def _heldout_facts(number: int, run: Run) -> Iterator[Facts]:
    """Of the greedy completions of each held-out clip; their spread is that of the clip's r_SER."""
    rewards: dict[str, list[float]] = {}
    evaluations = {step: records for (step, draw), records in sorted(run.heldout.items()) if draw == DRAWS[0]}
    for records in evaluations.values():
        for record in records:
            rewards.setdefault(record.clip, []).append(record.reward)
    for step, records in evaluations.items():
        for record in records:
            known = [reward for reward in rewards[record.clip] if not math.isnan(reward)]
            key = Key(number, HELDOUT, step, record.clip)
            yield Facts(key, record.clip, max(known, default=0.0) - min(known, default=0.0))


class _Datasets:
    """The recorded prompts of a run with the samples of its datasets that they are about."""

    def __init__(self, run: Run, read: Mapping[Place, Samples]):
        self.run, self.unreadable = run, 0
        self.space = run.config.template.box_space if run.config else "resized"
        self.trained = of_files(read, run.config.data.train if run.config else ())
        self.heldout = of_files(read, [run.config.data.heldout] if run.config else ())

    def training_facts(self, number: int) -> Iterator[Facts]:
        for group in self.run.groups():
            entry = self._entry(number, group)
            if entry is None:
                self.unreadable += 1
            else:
                key = Key(number, TRAINING, group.step, group.number)
                yield Facts(key, group.sample, entry.spread, entry.apart)

    def entries(self, number: int, taken: Collection[Key]) -> Iterator[tuple[Key, Entry, Sample | None]]:
        """The chosen ones, with their samples."""
        for group in self.run.groups():
            key = Key(number, TRAINING, group.step, group.number)
            if key in taken and (entry := self._entry(number, group)) is not None:
                yield key, entry, self._same(group)
        for (step, draw), records in self.run.heldout.items():
            for record in records:
                key = Key(number, HELDOUT, step, record.clip)
                if draw == DRAWS[0] and key in taken:
                    sample = self.heldout.by_id.get(record.clip)
                    yield key, heldout_entry(number, step, record, sample, self.space), sample

    def notes(self) -> list[str]:
        problems = [*dict.fromkeys([*self.trained.problems, *self.heldout.problems])]
        if self.unreadable:
            problems.append(f"{SAMPLES}: {counted(self.unreadable, 'group')} that this version cannot read, left out")
        where = "; relative paths count from the folder in which `ser report` runs, as in `ser train`"
        return [problem + where * ("no such file" in problem) for problem in problems]

    def _entry(self, number: int, group: Group) -> Entry | None:
        """None for a group whose lines hold something else."""
        try:
            return training_entry(number, group, self._same(group), self.space)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            return None

    def _same(self, group: Group) -> Sample | None:
        """The sample of the group's id, if it still asks the recorded question."""
        sample = self.trained.by_id.get(group.sample)
        return sample if sample and sample.question == group.lines[0].get("question") else None
