"""`dry_run=true`: the first step of a training run with tiny random models of the same families.

Guarantees: what a real run refuses is refused too, as far as it does not depend on weights that are not there; whatever
differs from the real run is printed, one line each; nothing is left behind, and `run_dir` is not created.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from learner.checkpoints import NO
from orchestration.diagnosis.gpu_facts import read_gpus
from orchestration.machine import gpu_memory_gib, joins_cluster
from orchestration.planning.shapes import Shape, read_shape
from orchestration.preflight import check_train, require_fits
from orchestration.resuming import Start, differences
from orchestration.run_directory import run_directory
from orchestration.settings import TrainConfig
from referee.service.sources import read_calibration

POLICY, REFEREE, RUN = "policy", "referee", "run"  # folders of a dry run
MOST_RANKS = 2  # without GPUs: enough for every collective
COMPLETIONS = 2  # of a group, without GPUs
CPU_STORE_GIB, CPU_FRAMES_GIB, CPU_CACHE_GIB = 0.75, 0.5, 0.25


@contextlib.contextmanager
def rehearsal(config: TrainConfig) -> Iterator[TrainConfig]:
    """The config of a dry run of `config`, whose models exist during the block. Raises BadInput."""
    run_dir = run_directory(config.run_dir)
    Start.found(run_dir, config.resume)
    if config.gpus:
        require_fits(config, gpu_memory_gib())
    policy = read_shape("model.policy", config.model.policy)
    referees = [read_shape("model.referee", s.model) for s in config.model.referee if not s.url]
    for source in config.model.referee:
        if source.calibration:
            read_calibration(source.calibration)
    if all((Path(shape.name) / "config.json").is_file() for shape in (policy, *referees)):
        check_train(config)
    # Beside run_dir, where every node of a cluster sees it.
    parent = next(path for path in run_dir.parents if path.exists())
    with TemporaryDirectory(prefix=".ser-dry-run-", dir=parent) as name:
        folder = Path(name)
        reduced = reduce(config, folder, on_gpus=joins_cluster() or len(read_gpus().gpus) >= config.gpus)
        for key, before, after in differences(replace(config, dry_run=False), reduced):
            print(f"dry run: {key} = {after} (was {before})", flush=True)
        _make_tiny(folder / POLICY, policy, config)
        for number, shape in enumerate(referees):
            _make_tiny(folder / f"{REFEREE}-{number}", shape, config)
        yield reduced
    print("dry run: the first step has ended; nothing is kept", flush=True)


def reduce(config: TrainConfig, folder: Path, on_gpus: bool) -> TrainConfig:
    """The config of a dry run in `folder`, with the config's division of GPUs, or with one engine of each kind and at
    most two ranks on the CPU. Lengths, frames and all that concerns the algorithm stay as they are. Pure."""
    sources, numbers = [], iter(range(len(config.model.referee)))
    for source in config.model.referee:
        local = source if source.url else replace(source, model=str(folder / f"{REFEREE}-{next(numbers)}"))
        sources.append(replace(local, calibration=""))  # made for the real referee
    config = replace(
        config,
        model=replace(config.model, policy=str(folder / POLICY), referee=sources),
        eval=replace(
            config.eval,
            samples=0 if config.eval.samples == 0 else 1,
            every=config.eval.every and 1,
            benchmarks=[replace(benchmark, limit=1) for benchmark in config.eval.benchmarks],
        ),
        steps=1,
        run_dir=str(folder / RUN),
        resume=NO,
        wandb="disabled",
        dry_run=False,
    )
    return config if on_gpus else _on_cpu(config)


def _on_cpu(config: TrainConfig) -> TrainConfig:
    """The config with as few processes as have every part, all without GPUs."""
    ranks = min(MOST_RANKS, config.learner.ranks)
    reference = config.learner.reference
    sources = [replace(source, replicas=1, gpu_memory_utilization=None) for source in config.model.referee[:1]]
    return replace(
        config,
        model=replace(config.model, referee=sources),
        sampling=replace(config.sampling, group_size=COMPLETIONS, top_p=1.0, top_k=0),
        pacing=replace(config.pacing, groups_per_step=ranks),
        learner=replace(
            config.learner,
            ranks=ranks,
            reference=replace(reference, ranks=1) if reference.kind == "frozen" else reference,
        ),
        cluster=replace(
            config.cluster,
            rollout_engines=1,
            gpus_per_engine=0.0,
            gpus_per_rank=0.0,
            tensor_parallel=1,
            colocated=False,
            model_runner="v1",
            object_store_gib=min(CPU_STORE_GIB, config.cluster.object_store_gib),
            frames_gib=min(CPU_FRAMES_GIB, config.cluster.frames_gib),
            kv_cache_gib=min(CPU_CACHE_GIB, config.cluster.kv_cache_gib),
        ),
        frames=replace(config.frames, workers=min(2, config.frames.workers)),
    )


def _make_tiny(folder: Path, shape: Shape, config: TrainConfig) -> None:
    """Write a tiny model with the family and the tiles of `shape`. Its tokenizer knows the words of the prompts."""
    from learner.model.tiny import TinySpec, create_tiny_model  # torch takes seconds to import

    spec = TinySpec(
        family=shape.family.model_type,
        text_layers=2,
        vision_layers=2,
        patch=shape.vision.patch,
        merge=math.isqrt(shape.vision.merged),
        vocab=2000,
        max_positions=config.sampling.max_model_len,
    )
    template, wording = config.template, config.verification.wording
    texts = [template.frame, template.question, *template.tasks.values(), wording.relevance, wording.localization]
    create_tiny_model(folder, spec, texts * 3)
