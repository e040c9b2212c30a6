"""The part of the vLLM adapter that runs in vLLM's worker processes and loads weights from Ray's object store.

Guarantees (promise 7): a weight set is fetched and verified in a thread while the engine generates; a set that fails
its checksum, lacks a tensor or has an unknown one is never loaded, not even in part; refs and arrays are dropped after
loading. Where the weights actor keeps mirrors, the set is that of the node's mirror, which has verified it and is not
changed while it is loaded.
A set of adapter tensors is merged with the base weights in the engine's own folder (rollout/lora_merge).
vLLM finds `register` through the entry point group `vllm.general_plugins`.

Each worker process is a Ray driver of its own and receives the bucket refs in-band, as an actor's return value. It
borrows them, and the store frees them when the worker drops them. A ref pickled by hand would stay pinned forever.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import re
import signal
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from safetensors import safe_open
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.model_executor.models.utils import WeightsMapper

from evidence.families import Family, family_of
from evidence.manifest import CARRIER, Manifest, unpack_bucket, views_of
from rollout.lora_merge import is_adapter, merged_layers
from rollout.mirror_file import MirrorReader
from rollout.weight_mirror import parts

BACKEND = "ser"
FETCHING, READY = "fetching", "ready"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class WeightSetMismatch(RuntimeError):
    """A weight set whose tensor names differ from those of the engine's model."""


@dataclass
class StoreAddress(WeightTransferInitInfo):
    """Where the weights actor is: Ray's address and namespace, and the actor's name."""

    address: str
    namespace: str
    actor: str


@dataclass
class WeightUpdate(WeightTransferUpdateInfo):
    version: int


def register() -> None:
    """Register the backend with vLLM. vLLM calls this in each of its processes; those that it started itself are bound
    to the life of the process that started them."""
    if multiprocessing.parent_process() is not None:
        _die_with_parent()
    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(BACKEND, __name__, "StoreWeightTransfer")


def _die_with_parent() -> None:
    """Have the kernel kill this process when its parent has ended, however that ends. vLLM's processes notice that by
    themselves only while they run; one that is stopped (SIGSTOP) or hangs would keep its memory for ever."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


class StoreWeightTransfer(WeightTransferEngine[StoreAddress, WeightUpdate]):
    """Fetches versions ahead with `prefetch`, loads them between `start_weight_update` and `finish_weight_update`."""

    init_info_cls = StoreAddress
    update_info_cls = WeightUpdate

    def init_transfer_engine(self, init_info: StoreAddress) -> None:
        if not ray.is_initialized():
            ray.init(
                address=init_info.address,
                namespace=init_info.namespace,
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
        self.address = init_info
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="weights")
        self.fetched: tuple[int, Future] | None = None
        self.hold: MirrorReader | None = None  # on what was fetched, if that is in a mirror
        # vLLM warns about every layer that is missing from an update, such as those of a frozen vision tower.
        logging.getLogger("vllm.model_executor.model_loader.reload.layerwise").setLevel(logging.ERROR)
        # The tensors are read-only views of the store and are only read.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

    def prefetch(self, version: int, timeout_s: float) -> None:
        """Start to fetch and verify `version`, dropping what was fetched before."""
        if self.fetched is None or self.fetched[0] != version:
            self.fetched = (version, self.thread.submit(self._fetch, version, timeout_s))

    def fetch_state(self, version: int) -> str:
        """State of `version`: "fetching", "ready", or the reason why it cannot be loaded."""
        if self.fetched is None or self.fetched[0] != version:
            return f"version {version} was not requested"
        future = self.fetched[1]
        if not future.done():
            return FETCHING
        error = future.exception()
        if error is None:
            return READY
        self.fetched = None
        return f"version {version}: {type(error).__name__}: {error}"

    def _fetch(self, version: int, timeout_s: float) -> list[tuple[str, torch.Tensor]]:
        self._release()
        deadline = time.monotonic() + timeout_s
        try:
            return self._tensors(version, lambda: max(0.0, deadline - time.monotonic()))
        except BaseException:
            self._release()
            raise

    def _tensors(self, version: int, left_s: Callable[[], float]) -> list[tuple[str, torch.Tensor]]:
        store: Any = ray.get_actor(self.address.actor, namespace=self.address.namespace)
        node = ray.get_runtime_context().get_node_id()
        mirror: Any = ray.get(store.mirror.remote(node), timeout=left_s())
        manifest: Manifest
        if mirror is None:
            manifest = ray.get(store.manifest.remote(version), timeout=left_s())
            refs = ray.get(store.buckets.remote(version), timeout=left_s())
            arrays = ray.get(refs, timeout=left_s())
            views = [unpack_bucket(bucket, array) for bucket, array in zip(manifest.buckets, arrays, strict=True)]
        else:
            manifest, where = ray.get(mirror.hold.remote(version, left_s()), timeout=left_s())
            self.hold = MirrorReader(where, left_s())
            arrays = parts(manifest, self.hold.data)
            views = [views_of(bucket.entries, array) for bucket, array in zip(manifest.buckets, arrays, strict=True)]
        tensors: dict[str, torch.Tensor] = {}
        for bucket, named in zip(manifest.buckets, views):
            tensors |= {entry.name: _as_torch(named[entry.name], entry.dtype) for entry in bucket.entries}
        if not is_adapter(manifest.names):
            self._check_names(manifest)
            return list(tensors.items())
        dtype = self.model_config.dtype
        assert isinstance(dtype, torch.dtype)  # vLLM has resolved names such as "auto" by now
        return merged_layers(
            Path(self.model_config.model),
            tensors,
            lambda name: self._mapper.apply_list([name])[0],
            re.compile(self._family.engine_layer),
            dtype,
        )

    def _release(self) -> None:
        """Let the mirror change."""
        if self.hold is not None:
            self.hold.release()
            self.hold = None

    def _check_names(self, manifest: Manifest) -> None:
        """Raise WeightSetMismatch unless the names are the model's. A layer must be loaded whole or not at all, so the
        names are checked before any weight changes. Only a frozen vision tower may be missing."""
        expected = self._canonical(_checkpoint_names(Path(self.model_config.model)))
        given = self._canonical(manifest.names)
        unknown = sorted(given - expected)
        tower = f"{self._family.engine_tower}."
        missing = sorted(name for name in expected - given if not name.startswith(tower))
        if unknown or missing:
            raise WeightSetMismatch(
                f"version {manifest.version}: {len(missing)} tensors are missing {missing[:3]}, "
                f"{len(unknown)} are unknown {unknown[:3]}"
            )

    def _canonical(self, names: frozenset[str]) -> frozenset[str]:
        """vLLM's names. transformers uses one name for a tensor in memory and another in checkpoints."""
        mapped = frozenset(self._mapper.apply_list(sorted(names)))
        return frozenset(name for name in mapped if not (self._tied and name.endswith(f"{self._family.head}.weight")))

    @property
    def _mapper(self) -> WeightsMapper:
        model: Any = self.model
        return model.hf_to_vllm_mapper

    @property
    def _family(self) -> Family:
        return family_of(self.model_config.hf_config.model_type, self.model_config.model)

    @property
    def _tied(self) -> bool:
        return self.model_config.hf_config.get_text_config().tie_word_embeddings

    def start_weight_update(self) -> None:
        assert self.fetched is not None, "no version was fetched"
        assert self.fetch_state(self.fetched[0]) == READY, "the fetched version is not verified"
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: WeightUpdate) -> None:
        assert self.fetch_state(update_info.version) == READY
        assert self.fetched is not None
        model: Any = self.model
        model.load_weights(iter(self.fetched[1].result()))

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)
        if self._tied:
            # A tied head shares the embedding's tensor, which the reload fills in place. On a CPU, however, it computes
            # with its own packed copy, which the reload does not update.
            for layer in self.model.modules():
                if isinstance(layer, ParallelLMHead):
                    layer.quant_method.process_weights_after_loading(layer)
        self.fetched = None
        self._release()

    def update_weights(self, update_info: dict) -> None:
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def shutdown(self) -> None:
        if hasattr(self, "thread"):
            self.thread.shutdown(wait=False, cancel_futures=True)


class PrefetchExtension:
    """Methods added to vLLM's worker for `collective_rpc`. Both return immediately.

    Failures are returned, not raised, since vLLM would replace an exception by an error without its message."""

    weight_transfer_engine: StoreWeightTransfer

    def prefetch_weights(self, version: int, timeout_s: float) -> None:
        self.weight_transfer_engine.prefetch(version, timeout_s)

    def weights_state(self, version: int) -> str:
        return self.weight_transfer_engine.fetch_state(version)


def _checkpoint_names(folder: Path) -> frozenset[str]:
    names: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "np") as tensors:
            names.update(tensors.keys())
    return frozenset(names)


def _as_torch(array: np.ndarray, dtype: str) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    return tensor.view(getattr(torch, dtype)) if dtype in CARRIER else tensor
