"""The protocol that every referee backend implements, and the errors that asking it may raise. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

Turn = Sequence[str | tuple[int, int]]


class Unavailable(RuntimeError):
    """No answer, for a reason that may be temporary: the question should be retried."""


class Refused(RuntimeError):
    """This question will never be answered: retrying is pointless."""


class Barred(Refused):
    """The backend rejects the request itself: the key is not accepted, or the model or address does not exist. A
    single one may be due to its question; many in a row mean that the referee cannot be used."""


class Backend(Protocol):
    """One referee model.

    digest: identifies the model; a calibration is made for one digest. setting: whatever else the answers depend on.
    Both are part of the cache keys. tile: sides of the images that it takes are multiples of this many pixels.
    """

    digest: str
    setting: str
    tile: int

    async def start(self) -> None:
        """Start the backend. Raises BadInput for mistakes that the user must correct."""

    async def choose(self, turn: Turn, images: Sequence[np.ndarray], n: int) -> np.ndarray:
        """float32 [n]: the probabilities of the answers "0" … "n-1", which sum to 1.

        `turn`: texts, and (width, height) in place of each image; `images`: uint8 [h, w, 3] each, in the same order.
        Raises Unavailable and Refused (Barred included); any other exception is a defect.
        """

    async def stop(self) -> None: ...
