"""`ser score`: rewards of recorded completions, offline, one JSON line each.

Guarantees: the same reward graph as in training, on groups of all completions that name the same sample. A term
without a value counts 0 and is flagged; no other command does so (promise 8). A recipe that uses no referee needs
neither a GPU nor a model nor Ray.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evidence import spaces
from evidence.errors import BadInput, UnreadableMedia
from evidence.files import whole_file
from evidence.grammar import Completion, parse
from evidence.plain import dumps
from evidence.spaces import Written
from evidence.types import FrameInfo, Sample
from orchestration.config import load_config, recipe_file
from orchestration.folders import require_folder
from orchestration.reporting.samples import claim_line, scored_claim
from referee.reward.asking import answered
from referee.reward.graph import GroupReward, RewardGraph
from referee.reward.recorded import RecordedCompletion, read_completions
from referee.reward.settings import RewardConfig
from referee.terms.view import GroupView
from rollout.dataset.read import DatasetFile

if TYPE_CHECKING:  # imports ray, which scoring without a referee does without
    from orchestration.supervision.standalone_referee import StandaloneConfig

REFEREE_NEEDS = frozenset({"verdicts", "judgements"})


@dataclass(frozen=True)
class Output:
    """Where the lines are written: `path`, or stdout. An existing file is replaced only with `overwrite`, and only once
    all lines are written."""

    path: Path | None = None
    overwrite: bool = False

    def require_writable(self) -> None:
        """Raises BadInput, before any work."""
        if self.path is None:
            if self.overwrite:
                raise BadInput("--overwrite: nothing is replaced without --out FILE; leave it out")
            return
        if self.path.is_dir():
            raise BadInput(f"--out {self.path}: is a folder; name a file")
        if self.path.is_file() and not self.overwrite:
            raise self._taken()
        require_folder("--out", self.path.parent)

    def write(self, lines: Iterable[str]) -> None:
        """Raises BadInput if the file has been written by another process meanwhile, OSError if it cannot be."""
        if self.path is None:
            sys.stdout.writelines(lines)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with whole_file(self.path, new=not self.overwrite) as part, part.open("w", encoding="utf-8") as file:
                file.writelines(lines)
        except FileExistsError:
            raise self._taken() from None

    def _taken(self) -> BadInput:
        return BadInput(f"--out {self.path}: exists already; name a new file, or replace it with --overwrite")


def score_file(
    recipe: str,
    dataset: DatasetFile,
    completions: Path,
    progress: float,
    out: Output,
    referee: str | None,
    config: Path | None,
) -> None:
    """Write one JSON line per completion to `out`. Raises BadInput.

    progress: training progress, 0 to 1. referee: a model folder, for a recipe that uses a referee. config: the
    referee's settings and the space of the policy's boxes; a run's config.yaml has both.
    """
    if not 0 <= progress <= 1:
        raise BadInput(f"--progress {progress:g}: must be between 0 and 1")
    out.require_writable()
    graph = RewardGraph(load_config(RewardConfig, recipe_file("reward", recipe, "--reward")))
    uses_referee = bool(graph.needs & REFEREE_NEEDS)
    if uses_referee != (referee is not None):
        raise BadInput(
            f"--reward {recipe}: uses a referee; name one with --referee"
            if uses_referee
            else f"--referee {referee}: the recipe {recipe} uses none; leave it out"
        )
    settings, policy = None, Written()
    if config is not None or referee is not None:
        from orchestration.commands.run_files import judging_config, written  # imports ray

        # Without a referee, none is started, and its name is not read.
        settings = judging_config(config, [f"model.referee={referee or 'none'}"])
        policy = written(settings)
    recorded = read_completions(completions)
    samples = {sample.id: sample for sample in dataset}
    views = group_views(samples, recorded, progress, policy)
    unreadable: dict[str, str] = {}
    if referee is not None and settings is not None:
        views, unreadable = asyncio.run(_judged(graph, views, settings, policy))
    lines = scored_lines(graph, views, recorded, unreadable)
    out.write(dumps(line, places=6, ensure_ascii=False) + "\n" for line in lines)


def group_views(
    samples: Mapping[str, Sample],
    recorded: Iterable[RecordedCompletion],
    progress: float,
    policy: Written,
) -> dict[str, GroupView]:
    """The reward's view of each group of completions, by `RecordedCompletion.group_name`. Raises BadInput for an id
    without a sample.

    policy: how the texts were written.
    """
    groups: dict[str, list[RecordedCompletion]] = {}
    for completion in recorded:
        if completion.id not in samples:
            raise BadInput(
                f"{completion.where}: id = {completion.id!r}: no sample has it; samples are called {_some(samples)}"
            )
        groups.setdefault(completion.group_name, []).append(completion)
    views = {name: _view(samples[group[0].id], group, progress) for name, group in groups.items()}
    return {
        name: _in_frames(view, view.frames, policy) if view.frames and all(view.frames.size) else view
        for name, view in views.items()
    }


def scored_lines(
    graph: RewardGraph,
    views: Mapping[str, GroupView],
    recorded: Iterable[RecordedCompletion],
    unreadable: Mapping[str, str],
) -> Iterator[dict[str, Any]]:
    """One JSON object per completion that was not drawn on shuffled frames, in the given order. `unreadable`: why the
    media of a group cannot be read, by its name."""
    groups: dict[str, Iterator[dict[str, Any]]] = {}
    for completion in recorded:
        name = completion.group_name
        if completion.shuffled:
            continue
        if name not in groups:
            groups[name] = _lines(views[name], graph.score(views[name]))
        line = next(groups[name])
        if name in unreadable:
            line["flags"].append(f"unreadable media: {unreadable[name]}")
        yield line


async def _judged(
    graph: RewardGraph, views: Mapping[str, GroupView], settings: StandaloneConfig, policy: Written
) -> tuple[dict[str, GroupView], dict[str, str]]:
    """The views with the referee's answers, and the reasons why some media cannot be read, both by group name."""
    from orchestration.commands.ask_many import with_progress
    from orchestration.supervision.standalone_referee import standalone_referee

    unreadable: dict[str, str] = {}
    async with standalone_referee(settings, [settings.model.referee]) as standalone:

        async def judged(name: str, view: GroupView) -> tuple[str, GroupView]:
            try:
                lease = await standalone.lease(view.sample)
            except UnreadableMedia as error:
                unreadable[name] = str(error)
                return name, replace(view, frames=None)
            with lease:
                _require_same_frames(view, lease.info)
                view = _in_frames(view, lease.info, policy)
                return name, await answered(view, graph, standalone.first, lease.info, lease.frames)

        return dict(await with_progress("judging", [judged(name, view) for name, view in views.items()])), unreadable


def _in_frames(view: GroupView, info: FrameInfo, policy: Written) -> GroupView:
    """The view with frames `info`, boxes in their pixels, and claims at their times."""
    space, printed = policy.space, policy.printed(info) if info.times else {}
    completions = tuple(spaces.read(text, info, space, printed) for text in view.texts)
    contrast = view.contrast and _in_frames(view.contrast, info, policy)
    return replace(view, completions=completions, frames=info, box_space=space, printed=printed, contrast=contrast)


def _require_same_frames(view: GroupView, info: FrameInfo) -> None:
    """Raises BadInput if the recorded frames, as far as they are known, differ from the decoded ones."""
    recorded = view.frames
    if recorded is None:
        return
    same_times = len(recorded.times) in (0, len(info.times)) and all(
        abs(a - b) < 0.01 for a, b in zip(recorded.times, info.times)
    )
    if recorded.size not in ((0, 0), info.size) or not same_times:
        raise BadInput(
            f"sample {view.sample.id}: its completions were drawn on {len(recorded.times)} frames of {recorded.size}, "
            f"and the contract gives {len(info.times)} of {info.size} at {[round(time, 2) for time in info.times]} s; "
            "give the contract that they were drawn with, by --config"
        )


def _view(sample: Sample, group: Sequence[RecordedCompletion], progress: float) -> GroupView:
    frames = _frames(sample, group)
    drawn = [completion for completion in group if not completion.shuffled]
    shuffled = [completion for completion in group if completion.shuffled]
    tokens = tuple(completion.tokens for completion in drawn if completion.tokens is not None)
    view = GroupView(
        sample=sample,
        texts=tuple(completion.text for completion in drawn),
        completions=tuple(parse(completion.text) for completion in drawn),
        frames=frames,
        lengths=tokens if len(tokens) == len(drawn) else (),
        progress=progress,
        verdicts=((),) * len(drawn),
    )
    if not shuffled:
        return view
    texts = tuple(completion.text for completion in shuffled)
    return replace(view, contrast=GroupView(sample, texts, tuple(map(parse, texts)), frames, progress=progress))


def _frames(sample: Sample, group: Sequence[RecordedCompletion]) -> FrameInfo:
    """The frames on which all completions of a sample were drawn, as far as they are recorded. Raises BadInput."""
    first = group[0]
    for completion in group:
        if (completion.frame_size, completion.frame_times) != (first.frame_size, first.frame_times):
            raise BadInput(
                f"{completion.where}: its frame_size and frame_times differ from those of {first.where}, which is "
                "about the same sample; all completions of a sample must be drawn on the same frames"
            )
    size = first.frame_size
    return FrameInfo("", first.frame_times, size, sample.image_size or size, sample.duration or 0.0)


def _lines(view: GroupView, reward: GroupReward) -> Iterator[dict[str, Any]]:
    return (_line(view.sample, index, completion, reward) for index, completion in enumerate(view.completions))


def _line(sample: Sample, index: int, completion: Completion, reward: GroupReward) -> dict[str, Any]:
    scored = {claim_score.claim: claim_score for claim_score in reward.evidence[index]}
    claims = [
        scored_claim(scored[claim]) if claim in scored else claim_line(claim) | {"flag": claim.reason}
        for claim in completion.claims
    ]
    flags = [] if completion.well_formed else ["not well-formed"]
    flags += [f"claim {n}: {claim['flag']}" for n, claim in enumerate(claims) if claim["flag"]]
    flags += [f"{name}: left out, counted as 0" for name in reward.left_out]
    return {
        "id": sample.id,
        "reward": reward.rewards[index],
        "terms": {name: values[index] for name, values in reward.terms.items()},
        "claims": claims,
        "flags": flags,
    }


def _some(samples: Mapping[str, Sample]) -> str:
    names = list(samples)
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
