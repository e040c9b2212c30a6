"""Where verdicts come from, as a config says it, and the calibration that a referee may bring.

Guarantees: no key is ever part of a config. It is named by its environment variable, and read where it is used. Pure.
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

SCALE_SLOT = "<scale>"  # where an extra_body wants the list of the scale's tokens


@dataclass(frozen=True)
class RefereeSource:
    """One referee. A config may give the model alone.

    model: a folder with weights, tokenizer and processor files, of which `replicas` engines are started; or, with
    `url`, the name under which an OpenAI-compatible endpoint serves it.
    url: of the endpoint, as in http://127.0.0.1:8000/v1. api_key_env: the environment variable that holds its key; none
    if empty. version: of the weights behind the endpoint, which nobody can see from here: whoever changes them changes
    it, or old verdicts are taken for theirs. extra_body: what every request says beside the usual, as in
    {structured_outputs: {choice: <scale>}}, which keeps `vllm serve` to the scale.
    calibration: a file written by `ser calibrate`; none if empty.
    """

    SHORT: ClassVar[str] = "model"

    model: str
    url: str = ""
    api_key_env: str = ""
    version: str = ""
    replicas: int = 1
    extra_body: dict[str, Any] = field(default_factory=dict)
    calibration: str = ""

    def __post_init__(self) -> None:
        require_least(self, 1, "replicas")
        if self.api_key_env and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.api_key_env):
            # What it says may be the key itself.
            raise BadInput("api_key_env: it has to be the name of an environment variable, never a key")
        if not self.url:
            for key in ("api_key_env", "version", "extra_body"):
                if getattr(self, key):
                    raise BadInput(f"{key}: it is for an endpoint; give its url, or leave it out")
            return
        url = urlsplit(self.url)
        if url.username or url.password or url.query:
            raise BadInput("url: it may hold no password or key; name its variable in api_key_env")
        reachable = url.scheme in ("http", "https") and bool(url.hostname)
        require(reachable, "url", self.url, "one that begins with http:// or https:// and names a host")
        wanted = "left out: an endpoint has as many as it has; set referee.max_concurrent"
        require(self.replicas == 1, "replicas", self.replicas, wanted)

    @property
    def name(self) -> str:
        return f"{self.model} at {self.url}" if self.url else self.model

    def api_key(self) -> str:
        """The endpoint's key, empty if it needs none. Raises BadInput if its variable is not set in this process."""
        if not self.api_key_env:
            return ""
        key = os.environ.get(self.api_key_env, "")
        if not key:
            raise BadInput(
                f"model.referee.api_key_env = {self.api_key_env}: that variable is not set; set it to the key where "
                "the run is started, and on a cluster where Ray is"
            )
        return key


@dataclass(frozen=True)
class Calibration:
    """What `ser calibrate` found for one referee: by kind of question, the temperature of its log-probabilities."""

    path: str
    referee: str
    temperature: dict[str, float]

    def require(self, digest: str) -> None:
        """Raises BadInput if it was made for another referee than that of `digest`."""
        if digest != self.referee:
            raise BadInput(
                f"{self.path}: made for the referee {self.referee[:12]}, this one is {digest[:12]}; run "
                "`ser calibrate` for this one, or leave the calibration out"
            )


def read_calibration(path: str | Path) -> Calibration:
    """Raises BadInput if the file is not what `ser calibrate` writes."""
    wanted = f'{{"temperature": {{"{KINDS[0]}": T, "{KINDS[1]}": T}}, "referee": digest}}'
    try:
        said = json.loads(Path(path).read_text())
        digest, found = said["referee"], {kind: float(said["temperature"][kind]) for kind in KINDS}
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); `ser calibrate` writes it") from None
    except (ValueError, TypeError, KeyError):
        raise BadInput(f"{path}: no calibration; it has to hold {wanted}") from None
    if not isinstance(digest, str) or not all(0 < t < math.inf for t in found.values()):
        raise BadInput(f"{path}: no calibration; it has to hold {wanted}, each T above 0")
    return Calibration(str(path), digest, found)
