"""The weights actor: it collects weight buckets from the learner ranks, owns them and serves them to the engines.

Guarantees (promise 7): a version is visible only when complete; versions strictly increase; at most two are held, the
one that is being collected counted, so the object store never keeps more; a rank's death loses nothing, since the
caller of a Ray task owns what the task returned. Every wait has a timeout. An actor that dies takes its weights along
and is started again under its name, empty: `PublishedWeights` notices that, and the loop publishes again.

A version may consist of what changed since the one before. Engines then load from a mirror on their node
(rollout/weight_mirror.py), which this actor starts and which ends with it. A mirror that cannot make the newest version
from what it has and what is held here has all weights published again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from evidence.errors import RunFailed
from evidence.limits import Limits
from evidence.manifest import Bucket, Manifest
from evidence.supervision import Restarts, actor_class
from orchestration.supervision.waiting import MARGIN_S, died, no_answer
from rollout.weight_mirror import WeightMirror

NAME = "the weights actor"
# Seconds between two calls of an actor that is being restarted.
RETRY_S = 0.2

log = logging.getLogger(__name__)


class WeightsLost(RunFailed):
    """The weights actor dies too often, or cannot be started again."""


class IncompleteWeights(RuntimeError):
    """The ranks together did not return a complete weight set."""


class UnknownVersion(LookupError):
    """A version that is not held: not yet published, or already dropped."""


def assemble(version: int, buckets: Sequence[Bucket]) -> Manifest:
    """The manifest of `buckets`, in any order. Raises IncompleteWeights for a gap or a tensor in two buckets."""
    ordered = tuple(sorted(buckets, key=lambda bucket: bucket.index))
    total = ordered[0].total if ordered else 0
    if not ordered or [(bucket.index, bucket.total) for bucket in ordered] != [(n, total) for n in range(total)]:
        raise IncompleteWeights(f"version {version}: got buckets {[bucket.index for bucket in ordered]} of {total}")
    manifest = Manifest(version, ordered)
    if len(manifest.names) != sum(len(bucket.entries) for bucket in ordered):
        raise IncompleteWeights(f"version {version}: a tensor is in more than one bucket")
    return manifest


@dataclass(frozen=True)
class Publication:
    """What a publication sent. share: of the bytes of all weights. forced: whether it had to be all of them because a
    mirror could not follow."""

    share: float
    forced: bool


# When it dies, Ray starts it again under its name, and all handles stay valid.
@ray.remote(num_cpus=0, max_restarts=-1)
class WeightsActor:
    """The driver creates it under a name, by which the engines find it.

    full_every: all weights are sent with every so many publications, what changed with the others.
    """

    def __init__(self, full_every: int = 1) -> None:
        self.full_every = full_every
        self.held: dict[int, tuple[Manifest, list[ray.ObjectRef]]] = {}
        self.mirrors: dict[str, Any] = {}
        self.publishing = asyncio.Lock()
        self._changes = 0  # publications since the last one of all weights
        self._full_wanted = False

    async def publish(self, version: int, ranks: list[Any], timeout_s: float, attempt: int = 0) -> Publication:
        """Collect `version` from every rank's `weight_buckets`, which streams header, bytes, header, bytes...

        attempt: rises with every publication that the ranks are asked for. Only the newest version is kept meanwhile:
        call it when no engine loads an older one.
        Raises ValueError if `version` is not above the last one, IncompleteWeights, TimeoutError, or a rank's own
        error; the newest version held before stays.
        """
        async with asyncio.timeout(timeout_s), self.publishing:
            newest = max(self.held, default=None)
            if newest is not None and version <= newest:
                raise ValueError(f"weight version {version} is not above {newest}")
            for old in sorted(self.held)[:-1]:
                del self.held[old]
            base = None if self._full_wanted or self._changes + 1 >= self.full_every else newest
            keep = self.full_every > 1
            collected = await asyncio.gather(*(_collect(rank, version, attempt, base, keep) for rank in ranks))
        buckets = sorted((pair for pairs in collected for pair in pairs), key=lambda pair: pair[0].index)
        manifest = assemble(version, [bucket for bucket, _ in buckets])
        self.held[version] = (manifest, [ref for _, ref in buckets])
        if manifest.base is not None:
            self._changes += 1
            return Publication(manifest.sent / manifest.nbytes, forced=False)
        forced, self._full_wanted, self._changes = self._full_wanted, False, 0
        return Publication(1.0, forced)

    async def drop(self, mirrors: bool = False) -> None:
        """Drop all versions. mirrors: replace these, too, which may hang."""
        self.held.clear()
        if mirrors and self.mirrors:
            for mirror in self.mirrors.values():
                ray.kill(mirror)
            self.mirrors.clear()
            self._full_wanted = True

    async def latest(self) -> int | None:
        return max(self.held, default=None)

    async def manifest(self, version: int) -> Manifest:
        return self._find(version)[0]

    async def buckets(self, version: int) -> list[ray.ObjectRef]:
        """Refs to the bytes of each bucket, uint8 [nbytes], in the order of the manifest."""
        return self._find(version)[1]

    async def mirror(self, node: str) -> Any:
        """The mirror on the node with this id, or None if engines read the buckets themselves."""
        if self.full_every > 1 and node not in self.mirrors:
            here = NodeAffinitySchedulingStrategy(node, soft=False)
            this = ray.get_runtime_context().current_actor
            self.mirrors[node] = actor_class(WeightMirror).options(scheduling_strategy=here).remote(this)
        return self.mirrors.get(node)

    async def path(self, version: int, base: int | None) -> list[tuple[Manifest, list[ray.ObjectRef]]]:
        """What makes `version` of version `base`, or of nothing: manifests, each with refs as from `buckets`, in the
        order in which they are to be applied."""
        path = [self._find(version)]
        while (before := path[0][0].base) is not None and before != base:
            if before not in self.held:
                self.want_full(version)
                raise UnknownVersion(f"weight version {version} changes {before}, which is not held any more")
            path.insert(0, self.held[before])
        return path

    def want_full(self, version: int) -> None:
        """Send all weights with the next publication, if a mirror cannot make `version` and that is the newest."""
        self._full_wanted = self._full_wanted or version == max(self.held, default=None)

    async def full_wanted(self) -> bool:
        return self._full_wanted

    def _find(self, version: int) -> tuple[Manifest, list[ray.ObjectRef]]:
        if version not in self.held:
            raise UnknownVersion(f"weight version {version} is not held, only {sorted(self.held)}")
        return self.held[version]


async def _collect(
    rank: Any, version: int, attempt: int, base: int | None, keep: bool
) -> list[tuple[Bucket, ray.ObjectRef]]:
    """One rank's buckets, each with a ref to its bytes. Raises the rank's error."""
    stream = rank.weight_buckets.options(num_returns="streaming")
    pairs: list[tuple[Bucket, ray.ObjectRef]] = []
    header: Bucket | None = None
    async for ref in stream.remote(version, attempt=attempt, base=base, keep=keep):
        if header is None:
            header = await ref
        else:
            pairs.append((header, ref))
            header = None
    if pairs:
        await pairs[-1][1]  # an error ends the stream in place of a header, which raises above, or of bytes
    return pairs


class PublishedWeights:
    """The driver's view of the weights actor. Use it from one event loop.

    actor: its handle, which stays valid when Ray restarts it. version: the newest published, if any. lost: whether the
    actor was found without it. full_wanted: whether a mirror was found that needs all weights. share: of their bytes,
    what the last publication sent. seconds: what it took. forced: publications of all weights because of a mirror.
    """

    def __init__(self, actor: Any, limits: Limits):
        self.actor, self.limits = actor, limits
        self.version: int | None = None
        self.lost = self.full_wanted = False
        self.share, self.seconds, self.forced = 1.0, 0.0, 0
        self._attempts = 0
        self._restarts = Restarts(limits.restarts_per_hour)

    @property
    def metrics(self) -> dict[str, float]:
        return {"weights/sent": self.share, "weights/forced": self.forced, "weights/publish_s": self.seconds}

    async def publish(self, version: int, ranks: list[Any], limit_s: float) -> None:
        """Have the actor collect `version` from the ranks, again if it dies meanwhile. Raises what a rank raised,
        TimeoutError, and WeightsLost if the actor dies too often or is not started again."""
        newest, repeated, began = None, False, time.monotonic()
        while newest != version:
            self._attempts += 1
            try:
                # The actor enforces this limit itself; the margin covers an actor that no longer can.
                async with asyncio.timeout(limit_s + MARGIN_S):
                    publication = await self.actor.publish.remote(version, ranks, limit_s, self._attempts)
                newest = version
                self.share = publication.share
                self.forced += publication.forced
            except ray.exceptions.RayTaskError:  # which is also an instance of its cause's class
                # An attempt whose reply was lost may have gone on and succeeded.
                if not repeated or await self._newest(self.limits.heartbeat_s) != version:
                    raise
                newest = version
            except ray.exceptions.RayActorError:
                newest, repeated = await self._restarted(f"publishing weights {version}"), True
        self.version, self.lost, self.full_wanted = version, False, False
        self.seconds = time.monotonic() - began

    async def drop(self, mirrors: bool) -> None:
        """Have the actor drop weights that an engine cannot load, so that the same version can be published again.
        mirrors: as in `WeightsActor.drop`."""
        try:
            async with asyncio.timeout(self.limits.heartbeat_s):
                await self.actor.drop.remote(mirrors)
        except TimeoutError:
            ray.kill(self.actor, no_restart=False)
        except ray.exceptions.RayActorError:
            pass  # it has dropped them

    async def restored(self) -> None:
        """Wait until an actor that was lost runs again. Raises WeightsLost."""
        await self._restarted(f"holding weights {self.version}")

    async def check(self) -> bool:
        """Whether the actor holds the published version; if it answers and does not, set `lost`. Sets `full_wanted`,
        too. An actor that does not answer for `limits.heartbeat_s` is killed, and started again by Ray."""
        version = self.version
        try:
            newest = await self._newest(self.limits.heartbeat_s)
            async with asyncio.timeout(self.limits.heartbeat_s):
                full_wanted = await self.actor.full_wanted.remote()
        except TimeoutError:
            log.warning("%s; it is restarted", no_answer(NAME, "running", self.limits.heartbeat_s, "heartbeat_s"))
            ray.kill(self.actor, no_restart=False)
        except ray.exceptions.RayActorError:
            pass  # the next check tells whether it died
        else:
            holds = version is None or (newest is not None and newest >= version)
            self.lost = self.lost or not holds
            if version == self.version:  # nothing was published meanwhile
                self.full_wanted = full_wanted
            return holds
        return False

    async def _restarted(self, doing: str) -> int | None:
        """The newest version that the actor holds, once it answers again after a failure. Raises WeightsLost."""
        pause_s, start_s = self._restarts.pause_s(), self.limits.start_s
        if self._restarts.blocked_s():
            raise WeightsLost(f"{died(NAME, doing)}, more often than limits.restarts_per_hour allows")
        log.warning("%s; it is restarted", died(NAME, doing))
        self._restarts.begin()
        await asyncio.sleep(pause_s)
        deadline = asyncio.get_running_loop().time() + start_s
        while (left := deadline - asyncio.get_running_loop().time()) > 0:
            try:
                newest = await self._newest(left)
            except TimeoutError:
                break
            except ray.exceptions.RayActorError:
                await asyncio.sleep(RETRY_S)
            else:
                self._restarts.ready()
                return newest
        raise WeightsLost(no_answer(NAME, "starting again", start_s, "start_s"))

    async def _newest(self, limit_s: float) -> int | None:
        async with asyncio.timeout(limit_s):
            return await self.actor.latest.remote()
