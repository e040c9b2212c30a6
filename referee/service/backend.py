"""What a referee backend must provide: one protocol, and the two ways in which a request to it can fail. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

Turn = Sequence[str | tuple[int, int]]


class Unavailable(RuntimeError):
    """No answer this time, for a reason that may pass: asking again is worth it."""


class Refused(RuntimeError):
    """This question will never be answered: asking again would change nothing."""


class Barred(Refused):
    """No question was let in, of this kind or another: a key that is not accepted, a model or an address that is not
    there. One may be about its own question; many in a row are about the referee."""


class Backend(Protocol):
    """One referee model.

    digest: who it is; a calibration is made for it. setting: what else its answers depend on. Both enter the keys of
    what is remembered.
    """

    digest: str
    setting: str

    async def start(self) -> None:
        """Make it ready, once. Raises BadInput for what a person has to mend."""

    async def choose(self, turn: Turn, images: Sequence[np.ndarray], n: int) -> np.ndarray:
        """float32 [n]: the probabilities of the answers "0" … "n-1", which sum to 1.

        `turn`: texts, and (width, height) where an image stands; `images`: uint8 [h, w, 3] each, in their order.
        Raises Unavailable and Refused (Barred included); anything else is a defect.
        """

    async def stop(self) -> None: ...
