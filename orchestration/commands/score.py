"""`ser score`: rewards of recorded completions, offline, one JSON line each.

Guarantees: the same reward graph as in training, on groups of all completions that name the same sample. A term
without a value counts 0 and is flagged; no other command does so (promise 8). A recipe that uses no referee needs
neither a GPU nor a model nor Ray.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evidence import spaces
from evidence.errors import BadInput, UnreadableMedia
from evidence.files import whole_file
from evidence.grammar import Completion, parse
from evidence.plain import dumps
from evidence.types import FrameInfo, Sample
from orchestration.config import load_config, recipe_file
from orchestration.reporting.samples import claim_line, scored_claim
from referee.reward.asking import answered
from referee.reward.graph import GroupReward, RewardGraph
from referee.reward.recorded import RecordedCompletion, read_completions
from referee.reward.settings import RewardConfig
from referee.terms.view import GroupView
from rollout.dataset.read import DatasetFile
from rollout.template import PromptTemplate

REFEREE_NEEDS = frozenset({"verdicts", "judgements"})


def score_file(
    recipe: str,
    dataset: DatasetFile,
    completions: Path,
    progress: float,
    out: Path | None,
    referee: str | None,
    config: Path | None,
) -> None:
    """Write one JSON line per completion to `out`, or to stdout. Raises BadInput.

    progress: training progress, 0 to 1. referee, config: a model folder and the referee's settings, for a recipe that
    uses a referee.
    """
    if not 0 <= progress <= 1:
        raise BadInput(f"--progress {progress:g}: must be between 0 and 1")
    if out is not None:
        from orchestration.preflight import require_folder  # imports transformers

        require_folder("--out", out.parent)
        if out.is_dir():
            raise BadInput(f"--out {out}: is a folder; name a file")
    graph = RewardGraph(load_config(RewardConfig, recipe_file("reward", recipe, "--reward")))
    uses_referee = bool(graph.needs & REFEREE_NEEDS)
    if uses_referee != (referee is not None):
        raise BadInput(
            f"--reward {recipe}: uses a referee; name one with --referee"
            if uses_referee
            else f"--referee {referee}: the recipe {recipe} uses none; leave it out"
        )
    if config is not None and not uses_referee:
        raise BadInput(f"--config {config}: configures a referee, and the recipe {recipe} uses none; leave it out")
    recorded = read_completions(completions)
    samples = {sample.id: sample for sample in dataset}
    views = group_views(samples, recorded, progress)
    unreadable: dict[str, str] = {}
    if referee is not None:
        views, unreadable = asyncio.run(_judged(graph, views, referee, config))
    lines = scored_lines(graph, views, recorded, unreadable)
    text = (dumps(line, places=6, ensure_ascii=False) + "\n" for line in lines)
    if out is None:
        sys.stdout.writelines(text)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(out) as part, part.open("w", encoding="utf-8") as file:
            file.writelines(text)


def group_views(
    samples: Mapping[str, Sample], recorded: Iterable[RecordedCompletion], progress: float
) -> dict[str, GroupView]:
    """The reward's view of each sample's completions, by sample id. Raises BadInput for an id without a sample."""
    groups: dict[str, list[RecordedCompletion]] = {}
    for completion in recorded:
        if completion.id not in samples:
            raise BadInput(
                f"{completion.where}: id = {completion.id!r}: no sample has it; samples are called {_some(samples)}"
            )
        groups.setdefault(completion.id, []).append(completion)
    return {name: _view(samples[name], group, progress) for name, group in groups.items()}


def scored_lines(
    graph: RewardGraph,
    views: Mapping[str, GroupView],
    recorded: Iterable[RecordedCompletion],
    unreadable: Mapping[str, str],
) -> Iterator[dict[str, Any]]:
    """One JSON object per completion that was not drawn on shuffled frames, in the given order. `unreadable`: why the
    media of a sample cannot be read, by sample id."""
    groups: dict[str, Iterator[dict[str, Any]]] = {}
    for completion in recorded:
        sample_id = completion.id
        if completion.shuffled:
            continue
        if sample_id not in groups:
            groups[sample_id] = _lines(views[sample_id], graph.score(views[sample_id]))
        line = next(groups[sample_id])
        if sample_id in unreadable:
            line["flags"].append(f"unreadable media: {unreadable[sample_id]}")
        yield line


async def _judged(
    graph: RewardGraph, views: Mapping[str, GroupView], referee: str, config: Path | None
) -> tuple[dict[str, GroupView], dict[str, str]]:
    """The views with the referee's answers, and the reasons why some media cannot be read, both by sample id."""
    from orchestration.commands.ask_many import with_progress
    from orchestration.supervision.standalone_referee import StandaloneConfig, standalone_referee

    settings = load_config(StandaloneConfig, config, [f"model.referee={referee}"])
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
                view = _in_frames(view, lease.info, settings.template)
                return name, await answered(view, graph, standalone.first, lease.info, lease.frames)

        return dict(await with_progress("judging", [judged(name, view) for name, view in views.items()])), unreadable


def _in_frames(view: GroupView, info: FrameInfo, template: PromptTemplate) -> GroupView:
    """The view with decoded frames `info`, boxes in their pixels, and claims at their times."""
    from rollout.prompt import printed_times  # imports transformers

    space, printed = template.box_space, printed_times(template, info)
    completions = tuple(spaces.read(text, info, space, printed) for text in view.texts)
    contrast = view.contrast and _in_frames(view.contrast, info, template)
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
