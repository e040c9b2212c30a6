"""Referees outside training: a Ray, the frames of a dataset, and one referee or several to ask about claims.

    async with offline(config, sources) as house:
        with await house.look(sample) as lease:
            verdicts = await house.verify(sample, claims, lease)

Guarantees: what can be wrong with the config is said before anything starts; frames are those of the sampling contract,
as in training; all ends with the block.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from omegaconf import MISSING

from evidence.errors import BadInput
from evidence.sampling import SamplingContract, resolved, shown_key_times
from evidence.types import Claim, Sample, Verdict
from orchestration.preflight import require_referee
from orchestration.settings import ClusterConfig, FramesConfig
from orchestration.supervision.cluster import start_ray
from orchestration.supervision.engines import EngineSizes, referee_engine
from orchestration.supervision.referee_pool import RefereePool, make_pool
from referee.service.cache import Answer
from referee.service.service import ServiceConfig
from referee.service.sources import RefereeSource
from referee.verification import VerificationConfig
from rollout.frames.store import FrameStore, Lease
from rollout.prompt import ChatEncoder
from rollout.template import PromptTemplate

SAMPLES_AT_ONCE = 8  # samples at once: enough to keep an engine busy


@dataclass(frozen=True)
class JudgedModels:
    """referee: a folder, or a section as in training (docs/referee.md). second: another one to compare it with."""

    referee: RefereeSource = MISSING
    second: RefereeSource | None = None


@dataclass(frozen=True)
class StandaloneConfig:
    """How a referee is run outside training. `engine`: of one in a folder. Of `cluster` what is about engines and
    frames counts; `template` is the policy's, of which the space counts that its boxes are in."""

    model: JudgedModels = field(default_factory=JudgedModels)
    engine: EngineSizes = field(default_factory=EngineSizes)
    contract: SamplingContract = field(default_factory=SamplingContract)
    template: PromptTemplate = field(default_factory=PromptTemplate)
    verification: VerificationConfig = field(default_factory=VerificationConfig)
    referee: ServiceConfig = field(default_factory=ServiceConfig)
    frames: FramesConfig = field(default_factory=FramesConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)


class StandaloneReferee:
    """What `offline` lends out. `pools` are the referees, in the order of their sources."""

    def __init__(self, pools: tuple[RefereePool, ...], store: FrameStore):
        self.pools, self.store = pools, store

    async def look(self, sample: Sample) -> Lease:
        """The frames of a sample, for a `with`. Raises UnreadableMedia."""
        return await self.store.lease(sample.media_path, shown_key_times(sample, self.store.contract))

    async def verify(self, sample: Sample, claims: list[Claim], lease: Lease, referee: int = 0) -> list[Verdict | None]:
        """As RefereeService.verify."""
        return await self._ask("verify", sample, claims, lease, referee)

    async def probabilities(
        self, sample: Sample, claims: list[Claim], lease: Lease, referee: int = 0
    ) -> list[dict[str, Answer] | None]:
        """As RefereeService.probabilities."""
        return await self._ask("probabilities", sample, claims, lease, referee)

    async def judge(self, sample: Sample, answer: str) -> float | None:
        """As RefereeService.judge, of the first referee."""
        return await self.pools[0].ask(sample.asked, "judge", sample.asked, sample.answer, answer)

    async def _ask(self, method: str, sample: Sample, claims: list[Claim], lease: Lease, referee: int) -> list:
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
    """Raises BadInput for a source that is no referee, or one that cannot see these frames."""
    contract = _resolved(config.contract, sources)
    for source in sources:
        require_referee(source, contract, config.verification)
    cluster = config.cluster
    gpus = cluster.gpus_per_engine * sum(source.replicas for source in sources if not source.url)
    with start_ray(cluster.object_store_gib, gpus):
        engine = partial(referee_engine, config.engine, config.cluster)
        pools = tuple(
            make_pool(source, config.referee, config.verification, engine, cluster.gpus_per_engine)
            for source in sources
        )
        await asyncio.gather(*(pool.start() for pool in pools))
        yield StandaloneReferee(
            pools, FrameStore(contract, int(cluster.frames_gib * 2**30), config.frames, SAMPLES_AT_ONCE)
        )
