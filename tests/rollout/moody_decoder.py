"""A decoder's process, in a module that it can import, which hangs or dies where the path says so of it."""

from __future__ import annotations

import os
import time
from multiprocessing.connection import Connection

from evidence.sampling import SamplingContract
from evidence.types import FrameInfo
from rollout.frames.decoding import Turns

INFO = FrameInfo("key", (0.0,), (28, 28), (28, 28), 1.0)


def decode(turns: Turns, contract: SamplingContract, memory_bytes: int, sender: Connection) -> None:
    if turns.decoder in turns.path and "hangs" in turns.path:
        time.sleep(1000)
    if turns.decoder in turns.path and "dies" in turns.path:
        os._exit(139)
    sender.send(INFO)
