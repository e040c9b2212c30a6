"""The plan of a run: whether it fits, how long it takes, what waits for what, and how best to divide GPUs. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from evidence.sampling import most_bytes
from orchestration.pacing import Pacing
from orchestration.planning.gpus import Gpu
from orchestration.planning.memory import (
    ELEMENT,
    GIB,
    RoleMemory,
    engine_memory,
    learner_memory,
    least_kv_bytes,
    node_memory,
    reference_memory,
    store_memory,
)
from orchestration.planning.shapes import Shape, read_shape
from orchestration.planning.simulation import Outcome, Parts, Seconds, simulate
from orchestration.planning.stages import group_seconds, stage_seconds
from orchestration.planning.workload import Workload, assumptions, workload_of
from orchestration.settings import LearnerConfig, TrainConfig
from referee.reward.graph import RewardGraph

STEPS, OTHER_STEPS = 200, 100  # simulated for the plan itself, and for its synchronous or asynchronous counterpart
TRIED, TRIED_STEPS, SHOWN = 8, 40, 5  # divisions that are simulated, the steps of each, and those that are shown
PAYS = 1.05  # asynchrony pays from this gain on
# Keys that lower each component of a GPU's memory.
REMEDIES = {
    "activations": "learner.policy.gradient_checkpointing=true, a lower learner.packing.token_budget",
    "vision activations": "learner.policy.train_vision=false, learner.policy.gradient_checkpointing=true",
    "optimizer states": "more learner.ranks, learner.zero.offload_optimizer=cpu, learner.policy.lora",
    "gradients": "more learner.ranks, learner.zero.offload_optimizer=cpu, learner.policy.lora",
    "optimizer temporaries": "learner.zero.offload_optimizer=cpu",
    "weight average": "learner.zero.ema=null",
    "weights": "more learner.ranks, learner.zero.offload_parameters=cpu",
    "image encoding": "a lower learner.packing.token_budget",
    "head": "a lower learner.policy.logit_chunk_mib, a lower learner.packing.token_budget",
}


@dataclass(frozen=True)
class Split:
    """GPUs of a run: learner ranks, rollout engines, and engines of each referee that is a model folder."""

    ranks: int
    engines: int
    referees: int


@dataclass(frozen=True)
class Tried:
    """A division of the GPUs and its simulated step."""

    split: Split
    step_s: float
    fits: bool


@dataclass(frozen=True)
class Plan:
    """gpu, gpus: planned for. needed: GPUs of the config's division. roles: each kind of GPU. node: bytes by component.
    problems: why it does not fit, a line each. seconds, stages: of a group's or step's parts, and of each stage of a
    step alone. outcome: of the simulation. async_gain: seconds of a synchronous step over those of an asynchronous one.
    tried: the best divisions."""

    gpu: str
    gpus: int
    needed: float
    split: Split
    roles: list[RoleMemory]
    node: dict[str, float]
    problems: list[str]
    seconds: Seconds
    stages: dict[str, float]
    outcome: Outcome
    async_gain: float
    hours: float
    tried: list[Tried]

    @property
    def fits(self) -> bool:
        return not self.problems

    def plain(self) -> dict[str, Any]:
        """The plan as JSON."""
        return {
            "fits": self.fits,
            "problems": self.problems,
            "gpu": self.gpu,
            "gpus": self.gpus,
            "split": asdict(self.split),
            "gib_per_gpu": {
                f"{role.role}: {name}": size / GIB for role in self.roles for name, size in role.components.items()
            },
            "gib_per_gpu_total": {role.role: role.total / GIB for role in self.roles},
            "gib_per_node": {name: size / GIB for name, size in self.node.items()},
            "step_s": self.outcome.step_s,
            "stages": self.stages,
            "staleness_mean": self.outcome.staleness_mean,
            "idle": self.outcome.idle,
            "async_gain": self.async_gain,
            "hours": self.hours,
            "gpu_hours": self.hours * self.gpus,
            "best_splits": [asdict(tried) for tried in self.tried],
            "assumptions": assumptions(),
        }


class Planner:
    """Plans a config for GPUs of one kind. A config without GPUs is planned as if each rank and engine had one."""

    def __init__(self, config: TrainConfig, name: str, gpu: Gpu):
        """`name`: of the `gpu`. Raises BadInput if a model's shape is not known."""
        cluster = config.cluster
        on_gpus = replace(
            cluster, gpus_per_rank=cluster.gpus_per_rank or 1.0, gpus_per_engine=cluster.gpus_per_engine or 1.0
        )
        self.config = replace(config, cluster=on_gpus)
        self.name, self.gpu = name, gpu
        self.policy = read_shape("model.policy", config.model.policy)
        sources = [source for source in config.model.referee if not source.url]
        self.referees = [read_shape("model.referee", source.model) for source in sources]
        self.needs = RewardGraph(config.reward).needs
        self.workload = workload_of(config, self.policy)
        self.split = Split(
            config.learner.ranks, cluster.rollout_engines, max((source.replicas for source in sources), default=0)
        )

    def plan(self, gpus: int | None = None) -> Plan:
        """`gpus`: those there are; None: as many as the config uses."""
        config, needed = self.config, self.config.gpus
        total = math.ceil(needed) if gpus is None else gpus
        problems = self.problems()
        if needed > total:
            problems.insert(
                0,
                f"{needed:g} GPUs are needed, {total} are given: lower learner.ranks, cluster.rollout_engines or "
                "model.referee.replicas",
            )
        seconds = self._seconds(self.split)
        pacing, other = config.pacing, replace(config.pacing, staleness=0 if config.pacing.staleness else 1)
        outcome = self._simulated(pacing, self.split, STEPS)
        alternative = self._simulated(other, self.split, OTHER_STEPS)
        synchronous, asynchronous = (alternative, outcome) if pacing.staleness else (outcome, alternative)
        return Plan(
            gpu=self.name,
            gpus=total,
            needed=needed,
            split=self.split,
            roles=self.roles(self.split),
            node=node_memory(config, self.policy, self._processes(self.split), total),
            problems=problems,
            seconds=seconds,
            stages=stages(config, seconds, self.workload, self.split),
            outcome=outcome,
            async_gain=synchronous.step_s / asynchronous.step_s,
            hours=config.steps * outcome.step_s / 3600,
            tried=self._best(total),
        )

    def roles(self, split: Split) -> list[RoleMemory]:
        """The memory of each kind of GPU, the policy's engine after the learner's rank."""
        config, learner = self.config, self._learner(split)
        sampling, cluster = config.sampling, config.cluster
        element, groups = ELEMENT[learner.zero.precision], config.pacing.groups_per_step
        taken = sum(config.memory_shares) if cluster.colocated else 0.0
        roles = [learner_memory(self.policy, learner, self.workload, groups, (1 - taken) * self.gpu.memory_gib)]
        roles.append(engine_memory("engine", self.policy, sampling, cluster, element, self.gpu))
        if self.referees:
            roles.append(self._tightest_referee()[1])
        if learner.reference.kind == "frozen":
            roles.append(reference_memory(self.policy, learner, self.workload, groups, self.gpu))
        return roles

    def _tightest_referee(self) -> tuple[Shape, RoleMemory]:
        """The referee whose engines have the least room for a KV cache."""
        config = self.config
        element, sources = ELEMENT[config.learner.zero.precision], [s for s in config.model.referee if not s.url]
        roles = []
        for shape, source in zip(self.referees, sources):
            share = source.gpu_memory_utilization or config.cluster.gpu_memory_utilization
            cluster = replace(config.cluster, gpu_memory_utilization=share)
            roles.append((shape, engine_memory("referee", shape, config.sampling, cluster, element, self.gpu)))
        return min(roles, key=lambda entry: entry[1].components["KV cache"])

    def problems(self) -> list[str]:
        """Why the config does not fit, each with its numbers and the keys that would help."""
        config = self.config
        found = [problem for role in self.roles(self.split) if (problem := self._role_problem(role))]
        store, held = config.cluster.object_store_gib, store_memory(config, self.policy)
        if sum(held.values()) > store * GIB:
            found.append(
                f"cluster.object_store_gib = {store:g}: holds {_listed(held)}, {sum(held.values()) / GIB:.1f} GiB "
                "together; raise it, or lower cluster.frames_gib"
            )
        frames = config.pacing.groups_per_step * most_bytes(config.contract)
        if frames > config.cluster.frames_gib * GIB:
            found.append(
                f"cluster.frames_gib = {config.cluster.frames_gib:g}: must be at least {frames / GIB:.2f}, the frames "
                "of a step's videos; raise it, or lower contract.frames or contract.max_pixels"
            )
        return found

    def _role_problem(self, role: RoleMemory) -> str | None:
        cluster, sampling = self.config.cluster, self.config.sampling
        largest = dict(sorted(role.components.items(), key=lambda item: -item[1])[:3])
        if role.role in ("engine", "referee"):
            shape = self.policy if role.role == "engine" else self._tightest_referee()[0]
            least = least_kv_bytes(shape, sampling, cluster, ELEMENT[self.config.learner.zero.precision])
            if role.components["KV cache"] >= least:
                return None
            return (
                f"{role.role}: {role.limit / GIB / self.gpu.memory_gib:g} of {self.gpu.memory_gib:g} GiB leave "
                f"{role.components['KV cache'] / GIB:.1f} GiB for the KV cache, of which sampling.max_model_len = "
                f"{sampling.max_model_len} needs {least / GIB:.1f} (largest: {_listed(largest)}); raise "
                "cluster.tensor_parallel with cluster.gpus_per_engine or cluster.gpu_memory_utilization, or lower "
                "sampling.max_model_len"
            )
        if role.total <= role.limit:
            return None
        beside = " beside the engines" if cluster.colocated and role.role == "learner" else ""
        remedies = dict.fromkeys(key for name in largest if name in REMEDIES for key in REMEDIES[name].split(", "))
        return (
            f"{role.role}: {role.total / GIB:.1f} GiB on a GPU of {role.limit / GIB:.1f} GiB{beside}, the largest "
            f"parts are {_listed(largest)}; what helps: {', '.join(remedies)}"
        )

    def _learner(self, split: Split) -> LearnerConfig:
        return replace(self.config.learner, ranks=split.ranks)

    def _seconds(self, split: Split) -> Seconds:
        config, learner = self.config, self._learner(split)
        return stage_seconds(config, learner, self.policy, self.referees, self.needs, self.workload, self.gpu)

    def _simulated(self, pacing: Pacing, split: Split, steps: int) -> Outcome:
        packing = self.config.learner.packing
        return simulate(pacing, self._parts(split), self._seconds(split), self.workload, packing, steps)

    def _parts(self, split: Split) -> Parts:
        config = self.config
        element = ELEMENT[config.learner.zero.precision]
        engine = engine_memory("engine", self.policy, config.sampling, config.cluster, element, self.gpu)
        room = engine.components["KV cache"] * config.cluster.tensor_parallel / self.policy.kv_bytes(element)
        return Parts(
            ranks=split.ranks,
            engines=split.engines,
            referees=split.referees,
            sequences=config.sampling.max_num_seqs,
            kv_tokens=int(room),
            decoders=config.frames.workers,
        )

    def _processes(self, split: Split) -> int:
        reference = self.config.learner.reference
        frozen = reference.ranks if reference.kind == "frozen" else 0
        return split.ranks + frozen + split.engines + split.referees * len(self.referees)

    def _splits(self, gpus: int) -> Iterator[Split]:
        """The divisions of `gpus` GPUs that leave too few for another engine."""
        cluster, reference = self.config.cluster, self.config.learner.reference
        if cluster.colocated:
            yield self.split
            return
        each, models = cluster.gpus_per_engine, len(self.referees)
        fixed = reference.ranks if reference.kind == "frozen" else 0
        for ranks in range(1, min(gpus, self.config.pacing.groups_per_step) + 1):
            engines = math.floor((gpus - fixed - ranks) / each + 1e-9)
            if not models and engines >= 1:
                yield Split(ranks, engines, 0)
            for referees in range(1, (engines - 1) // models + 1 if models else 0):
                yield Split(ranks, engines - referees * models, referees)

    def _best(self, gpus: int) -> list[Tried]:
        """The fastest divisions that fit, or the fastest ones if none does."""
        tried = []
        for split in self._splits(gpus):
            longest = max(stages(self.config, self._seconds(split), self.workload, split).values())
            fits = all(self._role_problem(role) is None for role in self.roles(split))
            tried.append((not fits, longest, split))
        tried.sort(key=lambda entry: entry[:2])
        simulated = [
            Tried(split, self._simulated(self.config.pacing, split, TRIED_STEPS).step_s, not misfit)
            for misfit, _, split in tried[:TRIED]
        ]
        return sorted(simulated, key=lambda entry: (not entry.fits, entry.step_s))[:SHOWN]


def stages(config: TrainConfig, seconds: Seconds, workload: Workload, split: Split) -> dict[str, float]:
    """Seconds that each stage of a step takes, were nothing else to wait for."""
    groups, packing = config.pacing.groups_per_step, config.learner.packing
    tokens = groups * workload.trained_tokens(packing, [round(workload.mean_length)] * workload.completions)
    sequences = min(config.sampling.max_num_seqs, math.ceil(groups * workload.completions / split.engines))
    every = config.pacing.publish_every
    return {
        "frames": groups * seconds.frames / config.frames.workers,
        "rollout": groups * group_seconds(seconds, workload, sequences) / split.engines + seconds.load / every,
        "referee": groups * seconds.referee / max(1, split.referees),
        "training": seconds.step + seconds.token * tokens + seconds.publish / every,
    }


def _listed(components: dict[str, float]) -> str:
    return ", ".join(f"{name} {size / GIB:.1f}" for name, size in components.items())
