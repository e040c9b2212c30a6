"""Referees outside training: starts Ray, a frame store, and one or more referees that judge claims.

    async with standalone_referee(config, sources) as standalone:
        with await standalone.lease(sample) as lease:
            verdicts = await standalone.verify(sample, claims, lease)

Guarantees: an invalid config is refused before anything starts; frames follow the sampling contract, as in training;
everything is stopped at the end of the block.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from omegaconf import MISSING

from evidence.errors import BadInput
from evidence.limits import Limits
from evidence.sampling import SamplingContract, resolved, selection
from evidence.types import Claim, Sample, Verdict
from orchestration.cluster_settings import ClusterConfig
from orchestration.preflight import require_referee
from orchestration.reporting.awaiting import awaiting
from orchestration.supervision.cluster import start_ray
from orchestration.supervision.engines import EngineSizes, referee_engine
from orchestration.supervision.referee_pool import Referee, RefereePool, make_pool
from referee.service.cache import Answer
from referee.service.service import ServiceConfig
from referee.service.sources import RefereeSource
from referee.verification import VerificationConfig
from rollout.frames.config import FramesConfig
from rollout.frames.store import FrameStore, Lease
from rollout.prompt import ChatEncoder
from rollout.template import PromptTemplate

SAMPLES_AT_ONCE = 8  # enough to keep an engine busy


@dataclass(frozen=True)
class JudgedModels:
    """referee: a model folder, or a section as in training (docs/referee.md). second: a referee to compare it with.
    policy: the policy's folder, needed with template.native_video, where its family chooses the times that are
    printed."""

    referee: RefereeSource = MISSING
    second: RefereeSource | None = None
    policy: str | None = None


@dataclass(frozen=True)
class StandaloneConfig:
    """How a referee is run outside training. engine: sizes of the engine of a referee in a folder. cluster: only its
    keys for engines and frames are used. limits: only those of a referee are used. template: the policy's template, for
    the coordinate space of its boxes."""

    model: JudgedModels = field(default_factory=JudgedModels)
    engine: EngineSizes = field(default_factory=EngineSizes)
    contract: SamplingContract = field(default_factory=SamplingContract)
    template: PromptTemplate = field(default_factory=PromptTemplate)
    verification: VerificationConfig = field(default_factory=VerificationConfig)
    referee: ServiceConfig = field(default_factory=ServiceConfig)
    frames: FramesConfig = field(default_factory=FramesConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    limits: Limits = field(default_factory=Limits)


class StandaloneReferee:
    """The running referees and their frame store. `pools`: the referees, in the order of their sources."""

    def __init__(self, pools: tuple[RefereePool, ...], store: FrameStore):
        self.pools, self.store = pools, store

    @property
    def first(self) -> Referee:
        """The first referee alone, with the interface that training uses."""
        return Referee(self.pools[:1])

    async def lease(self, sample: Sample) -> Lease:
        """Lease the frames of a sample; use the lease in a `with`. Raises UnreadableMedia."""
        return await self.store.lease(sample.media_path, selection(sample, self.store.contract))

    async def verify(self, sample: Sample, claims: list[Claim], lease: Lease, referee: int = 0) -> list[Verdict | None]:
        """RefereeService.verify of pool number `referee`."""
        return await self._ask("verify", sample, claims, lease, referee)

    async def probabilities(
        self, sample: Sample, claims: list[Claim], lease: Lease, referee: int = 0
    ) -> list[dict[str, Answer] | None]:
        """RefereeService.probabilities of pool number `referee`."""
        return await self._ask("probabilities", sample, claims, lease, referee)

    async def _ask(self, method: str, sample: Sample, claims: list[Claim], lease: Lease, referee: int) -> list[Any]:
        pool = self.pools[referee]
        answers = await pool.ask(lease.info.key, method, sample.asked, claims, lease.info, lease.frames)
        return answers or [None] * len(claims)


def _resolved(contract: SamplingContract, sources: Sequence[RefereeSource]) -> SamplingContract:
    """The contract with `multiple` set, by the tile of the first referee in a folder. Raises BadInput if there is none:
    the tile of an endpoint's model is not known."""
    if contract.multiple is not None:
        return contract
    folders = [source.model for source in sources if not source.url]
    if not folders:
        raise BadInput(
            "contract.multiple = null: must be set where every referee is an endpoint, whose tile is not known; give "
            "the policy's patch size times its merge size by --config (docs/models.md)"
        )
    return resolved(contract, ChatEncoder(folders[0]).tile)


@contextlib.asynccontextmanager
async def standalone_referee(
    config: StandaloneConfig, sources: Sequence[RefereeSource]
) -> AsyncIterator[StandaloneReferee]:
    """Start the referees of `sources`. Raises BadInput for a source that is not a referee, or whose tiles
    do not fit the crops."""
    contract = _resolved(config.contract, sources)
    for source in sources:
        require_referee(source, config.verification)
    cluster = config.cluster
    gpus = cluster.gpus_per_engine * sum(source.replicas for source in sources if not source.url)
    with start_ray(cluster.object_store_gib, gpus):
        engine = partial(referee_engine, config.engine, config.cluster)
        pools = tuple(
            make_pool(source, config.referee, config.verification, engine, cluster.gpus_per_engine, config.limits)
            for source in sources
        )
        try:
            with awaiting("referee"):
                await asyncio.gather(*(pool.start() for pool in pools))
            yield StandaloneReferee(
                pools, FrameStore(contract, int(cluster.frames_gib * 2**30), config.frames, SAMPLES_AT_ONCE)
            )
        finally:
            await end_tasks()


async def end_tasks() -> None:
    """Cancel all other tasks of the event loop and wait until they have ended.

    A task that calls Ray after its shutdown, as decoding does when it is cancelled, would make Ray join whatever
    cluster it finds on the machine.
    """
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
