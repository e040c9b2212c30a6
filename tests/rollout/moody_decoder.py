"""A decoder's process that hangs or dies if the path says so, in a module that the process can import."""

from __future__ import annotations

import os
import time
from multiprocessing.connection import Connection

from evidence.sampling import SamplingContract
from evidence.types import FrameInfo
from rollout.dataset.media import Job

INFO = FrameInfo("key", (0.0,), (28, 28), (28, 28), 1.0)


def decode(job: Job, contract: SamplingContract, memory_bytes: int, sender: Connection) -> None:
    turns = job.turns
    if turns.decoder in turns.path and "hangs" in turns.path:
        time.sleep(1000)
    if turns.decoder in turns.path and "dies" in turns.path:
        os._exit(139)
    sender.send(INFO)
    sender.send_bytes(b"")
