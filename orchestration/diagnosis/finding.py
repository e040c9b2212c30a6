"""What `ser doctor` judges by, and what it says about one thing. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How one thing stands: as a run needs it; as it may be, with a remark; or so that a run would fail."""

    OK = "ok"
    NOTE = "note"
    FAILS = "FAILS"


@dataclass(frozen=True)
class Finding:
    """One row of the table. remedy: what to do, unless all is well."""

    verdict: Verdict
    subject: str
    seen: str
    remedy: str = ""


@dataclass(frozen=True)
class Needs:
    """What a run asks of this machine.

    gpus: of all engines and ranks; 0 runs them on the CPU. processes: engines, referees and ranks. memory_gib: main
    memory at most. store_gib: Ray's object store, or 0 on a cluster that is joined. disk_gib: of `folder`. online:
    whether wandb must be reached.
    """

    gpus: float
    processes: int
    memory_gib: float
    store_gib: float
    disk_gib: float
    folder: str
    online: bool
