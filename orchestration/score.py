"""`ser score`: rewards of recorded completions, offline, one JSON line each.

Guarantees: the same reward graph as in training, on groups of all completions that name the same sample; a term whose
value cannot be had counts 0 and is flagged, here and nowhere else (promise 8). A recipe that asks no referee needs
neither a GPU nor a model nor Ray.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evidence.errors import BadInput
from evidence.grammar import Completion, parse
from evidence.types import FrameInfo, Sample
from orchestration.config import load_config, recipe_file
from orchestration.samples import claim_line, finite, scored_claim
from referee.recorded import Recorded, read_completions
from referee.reward.graph import GroupReward, RewardGraph
from referee.reward.settings import RewardConfig
from referee.terms.view import GroupView
from rollout.dataset.read import DatasetFile

ASKED = frozenset({"verdicts", "judgements"})


def score_file(recipe: str, dataset: DatasetFile, completions: Path, progress: float, out: Path | None) -> None:
    """Write one JSON line per completion to `out`, or to stdout. Raises BadInput."""
    if not 0 <= progress <= 1:
        raise BadInput(f"--progress {progress:g}: it has to be between 0 and 1")
    if out is not None:
        from orchestration.preflight import require_folder  # which imports transformers

        require_folder("--out", out.parent)
    graph = RewardGraph(load_config(RewardConfig, recipe_file("reward", recipe, "--reward")))
    if graph.needs & ASKED:
        raise BadInput(f"--reward {recipe}: it asks a referee, which is not supported here yet")
    recorded = read_completions(completions)
    samples = {sample.id: sample for sample in dataset}
    views = group_views(samples, recorded, progress)
    lines = scored_lines(graph, views, recorded)
    text = (json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    if out is None:
        sys.stdout.writelines(text)
    else:
        with out.open("w", encoding="utf-8") as file:
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
    graph: RewardGraph, views: Mapping[str, GroupView], recorded: Iterable[Recorded]
) -> Iterator[dict[str, Any]]:
    """One JSON object per completion that was not drawn on shuffled frames, in the order given."""
    groups: dict[str, Iterator[dict[str, Any]]] = {}
    for one in recorded:
        if one.shuffled:
            continue
        if one.id not in groups:
            view = views[one.id]
            reward = graph.score(view)
            groups[one.id] = (_line(view.sample, i, said, reward) for i, said in enumerate(view.completions))
        yield next(groups[one.id])


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
    evidence = reward.evidence[index]
    claims = [scored_claim(one) for one in evidence]
    if not evidence:
        claims = [claim_line(claim) | {"flag": claim.reason} for claim in completion.claims]
    flags = [] if completion.well_formed else ["not well-formed"]
    flags += [f"claim {n}: {claim['flag']}" for n, claim in enumerate(claims) if claim["flag"]]
    flags += [f"{name}: left out, counted as 0" for name in reward.left_out]
    return {
        "id": sample.id,
        "reward": finite(reward.rewards[index], 6),
        "terms": {name: finite(values[index], 6) for name, values in reward.terms.items()},
        "claims": claims,
        "flags": flags,
    }


def _some(samples: Mapping[str, Sample]) -> str:
    names = list(samples)
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
