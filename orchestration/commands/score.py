"""`ser score`: rewards of recorded completions, offline, one JSON line each.

Guarantees: the same reward graph as in training, on groups of all completions that name the same sample; a term whose
value cannot be had counts 0 and is flagged, here and nowhere else (promise 8). A recipe that asks no referee needs
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
from referee.reward.recorded import Recorded, read_completions
from referee.reward.settings import RewardConfig
from referee.terms.view import GroupView
from rollout.dataset.read import DatasetFile

ASKED = frozenset({"verdicts", "judgements"})


def score_file(
    recipe: str,
    dataset: DatasetFile,
    completions: Path,
    progress: float,
    out: Path | None,
    referee: str | None,
    config: Path | None,
) -> None:
    """Write one JSON line per completion to `out`, or to stdout. `referee`, and `config` with how it is asked, where
    the recipe asks one. Raises BadInput."""
    if not 0 <= progress <= 1:
        raise BadInput(f"--progress {progress:g}: it has to be between 0 and 1")
    if out is not None:
        from orchestration.preflight import require_folder  # which imports transformers

        require_folder("--out", out.parent)
        if out.is_dir():
            raise BadInput(f"--out {out}: it is a folder; name a file")
    graph = RewardGraph(load_config(RewardConfig, recipe_file("reward", recipe, "--reward")))
    asks = bool(graph.needs & ASKED)
    if asks != (referee is not None):
        raise BadInput(
            f"--reward {recipe}: it asks a referee; name one with --referee"
            if asks
            else f"--referee {referee}: the recipe {recipe} asks none; leave it out"
        )
    if config is not None and not asks:
        raise BadInput(f"--config {config}: it says how a referee is asked, and the recipe {recipe} asks none")
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


def group_views(samples: Mapping[str, Sample], recorded: Iterable[Recorded], progress: float) -> dict[str, GroupView]:
    """What the reward sees of the completions of each sample, by its id. Raises BadInput for one that no sample has."""
    groups: dict[str, list[Recorded]] = {}
    for one in recorded:
        if one.id not in samples:
            raise BadInput(f"{one.where}: id = {one.id!r}: no sample has it; samples are called {_some(samples)}")
        groups.setdefault(one.id, []).append(one)
    return {name: _view(samples[name], group, progress) for name, group in groups.items()}


def scored_lines(
    graph: RewardGraph,
    views: Mapping[str, GroupView],
    recorded: Iterable[Recorded],
    unreadable: Mapping[str, str],
) -> Iterator[dict[str, Any]]:
    """One JSON object per completion that was not drawn on shuffled frames, in the order given. `unreadable`: why the
    media of a sample cannot be looked at, by its id."""
    groups: dict[str, Iterator[dict[str, Any]]] = {}
    for one in recorded:
        if one.shuffled:
            continue
        if one.id not in groups:
            view = views[one.id]
            reward = graph.score(view)
            groups[one.id] = (_line(view.sample, i, said, reward) for i, said in enumerate(view.completions))
        line = next(groups[one.id])
        if one.id in unreadable:
            line["flags"].append(f"unreadable media: {unreadable[one.id]}")
        yield line


async def _judged(
    graph: RewardGraph, views: Mapping[str, GroupView], referee: str, config: Path | None
) -> tuple[dict[str, GroupView], dict[str, str]]:
    """The views with what the referee says of them, and the reasons why some cannot be looked at, by sample id."""
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
                view = _in_frames(view, lease.info, settings.template.box_space)
                return name, await answered(view, graph, standalone.first, lease.info, lease.frames)

        return dict(await with_progress("judging", [judged(*one) for one in views.items()])), unreadable


def _in_frames(view: GroupView, info: FrameInfo, box_space: str) -> GroupView:
    """The view with its frames decoded, boxes in their pixels."""
    completions = tuple(spaces.read(text, info, box_space) for text in view.texts)
    contrast = view.contrast and _in_frames(view.contrast, info, box_space)
    return replace(view, completions=completions, frames=info, box_space=box_space, contrast=contrast)


def _require_same_frames(view: GroupView, info: FrameInfo) -> None:
    said = view.frames
    if said is None:
        return
    times = len(said.times) in (0, len(info.times)) and all(abs(a - b) < 0.01 for a, b in zip(said.times, info.times))
    if said.size not in ((0, 0), info.size) or not times:
        raise BadInput(
            f"sample {view.sample.id}: its completions were drawn on {len(said.times)} frames of {said.size}, and the "
            f"contract makes {len(info.times)} of {info.size} at {[round(time, 2) for time in info.times]} s; give the "
            "contract that they were drawn with, by --config"
        )


def _view(sample: Sample, group: Sequence[Recorded], progress: float) -> GroupView:
    frames = _frames(sample, group)
    drawn = [one for one in group if not one.shuffled]
    shuffled = [one for one in group if one.shuffled]
    tokens = tuple(one.tokens for one in drawn if one.tokens is not None)
    view = GroupView(
        sample=sample,
        texts=tuple(one.text for one in drawn),
        completions=tuple(parse(one.text) for one in drawn),
        frames=frames,
        lengths=tokens if len(tokens) == len(drawn) else (),
        progress=progress,
        verdicts=((),) * len(drawn),
    )
    if not shuffled:
        return view
    texts = tuple(one.text for one in shuffled)
    return replace(view, contrast=GroupView(sample, texts, tuple(map(parse, texts)), frames, progress=progress))


def _frames(sample: Sample, group: Sequence[Recorded]) -> FrameInfo:
    """The frames that all completions of a sample were drawn on, as far as its lines say."""
    first = group[0]
    for one in group:
        if (one.frame_size, one.frame_times) != (first.frame_size, first.frame_times):
            raise BadInput(
                f"{one.where}: its frame_size and frame_times are not those of {first.where}, which is about the same "
                "sample; completions of one sample have to be drawn on the same frames"
            )
    size = first.frame_size
    return FrameInfo("", first.frame_times, size, sample.image_size or size, sample.duration or 0.0)


def _line(sample: Sample, index: int, completion: Completion, reward: GroupReward) -> dict[str, Any]:
    scored = {one.claim: one for one in reward.evidence[index]}
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
