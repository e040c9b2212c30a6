"""The config of a referee: the source of its verdicts, and its optional calibration.

Guarantee: no key is ever part of a config. A config names the environment variable, which is read where it is used.
Pure.
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from evidence.config_checks import require, require_least
from evidence.errors import BadInput
from referee.verification import KINDS

SCALE_SLOT = "<scale>"  # replaced in an extra_body by the list of the scale's tokens


@dataclass(frozen=True)
class RefereeSource:
    """One referee. A config may give the model alone.

    model: a folder with weights, tokenizer and processor files; or, with `url`, the name under which an
        OpenAI-compatible endpoint serves it. replicas: engines that are started from the folder.
    url: the endpoint's address, such as http://127.0.0.1:8000/v1.
    api_key_env: the environment variable that holds the endpoint's key; empty if it needs none.
    version: version of the weights behind the endpoint, which cannot be seen from here: change it with the weights, or
        cached verdicts of the old weights are reused.
    extra_body: extra fields of every request, such as {structured_outputs: {choice: <scale>}}, which restricts
        `vllm serve` to the scale.
    calibration: a file written by `ser calibrate`; empty for none.
    gpu_memory_utilization: share of a GPU's memory that each of its engines takes; null: as the policy's.
    """

    SHORT: ClassVar[str] = "model"

    model: str
    url: str = ""
    api_key_env: str = ""
    version: str = ""
    replicas: int = 1
    extra_body: dict[str, Any] = field(default_factory=dict)
    calibration: str = ""
    gpu_memory_utilization: float | None = None

    def __post_init__(self) -> None:
        require_least(self, 1, "replicas")
        share = self.gpu_memory_utilization
        require(share is None or 0 < share < 1, "gpu_memory_utilization", share, "above 0 and below 1, or null")
        if self.api_key_env and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.api_key_env):
            # The value is not repeated: it may be the key itself.
            raise BadInput("api_key_env: must be the name of an environment variable, never a key")
        if not self.url:
            for key in ("api_key_env", "version", "extra_body"):
                if getattr(self, key):
                    raise BadInput(f"{key}: only an endpoint has it; give its url, or leave {key} out")
            return
        require(share is None, "gpu_memory_utilization", share, "left out: an endpoint has GPUs of its own")
        url = urlsplit(self.url)
        if url.username or url.password or url.query:
            raise BadInput("url: must not contain a password or key; name its variable in api_key_env")
        reachable = url.scheme in ("http", "https") and bool(url.hostname)
        require(reachable, "url", self.url, "an address that begins with http:// or https:// and names a host")
        wanted = "left out: an endpoint has its own replicas; set referee.max_concurrent instead"
        require(self.replicas == 1, "replicas", self.replicas, wanted)

    @property
    def name(self) -> str:
        return f"{self.model} at {self.url}" if self.url else self.model

    def api_key(self) -> str:
        """The endpoint's key, empty if it needs none. Raises BadInput if the variable is not set in this process."""
        if not self.api_key_env:
            return ""
        key = os.environ.get(self.api_key_env, "")
        if not key:
            raise BadInput(
                f"model.referee.api_key_env = {self.api_key_env}: that variable is not set; set it to the key where "
                "the run is started and, on a cluster, where Ray is started"
            )
        return key


@dataclass(frozen=True)
class Calibration:
    """The result of `ser calibrate` for one referee: a temperature of its log-probabilities per kind of question."""

    path: str
    referee: str
    temperature: dict[str, float]

    def require(self, digest: str) -> None:
        """Raise BadInput unless it was made for the referee with this `digest`."""
        if digest != self.referee:
            raise BadInput(
                f"{self.path}: made for the referee {self.referee[:12]}, but this one is {digest[:12]}; run "
                "`ser calibrate` for this one, or leave the calibration out"
            )


def read_calibration(path: str | Path) -> Calibration:
    """Read a file written by `ser calibrate`. Raises BadInput for any other file."""
    wanted = f'{{"temperature": {{"{KINDS[0]}": T, "{KINDS[1]}": T}}, "referee": digest}}'
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        digest, temperature = content["referee"], {kind: float(content["temperature"][kind]) for kind in KINDS}
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); `ser calibrate` writes it") from None
    except (ValueError, TypeError, KeyError):
        raise BadInput(f"{path}: not a calibration; must contain {wanted}") from None
    if not isinstance(digest, str) or not all(0 < t < math.inf for t in temperature.values()):
        raise BadInput(f"{path}: not a calibration; must contain {wanted}, each T above 0")
    return Calibration(str(path), digest, temperature)
