"""The config of `ser answer` and `ser serve`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from evaluation.election import METHODS
from evaluation.election.election import Method
from evaluation.election.majority import Majority
from evaluation.election.open_o3 import OpenO3
from evaluation.election.perturbations import PerturbationConfig
from evaluation.election.rler import Rler
from evaluation.election.self_certainty import SelfCertainty
from evaluation.election.sparse_to_dense import SparseToDense
from evidence.config_checks import require, require_above_zero, require_least
from evidence.errors import BadInput
from orchestration.commands.run_files import is_config_of_run, shared_sections
from orchestration.config import Layer, load_config
from orchestration.supervision.standalone_policy import StandalonePolicyConfig
from referee.reward.ser import SerConfig
from referee.service.service import ServiceConfig
from referee.service.sources import RefereeSource
from referee.verification import VerificationConfig

MOST_TEMPERATURE = 2.0  # as in OpenAI's interface


@dataclass(frozen=True)
class ElectionConfig:
    """How candidates are drawn and elected; the methods' constants are in sections with their names.

    temperatures: of the candidates, in turn; empty for the method's own. perturb: of the input. at_once: the most
    candidates of one question that are drawn at a time: fewer waste less where the election ends early.
    """

    temperatures: list[float] = field(default_factory=list)
    at_once: int = 8
    perturb: PerturbationConfig = field(default_factory=PerturbationConfig)
    rler: Rler = field(default_factory=Rler)
    majority: Majority = field(default_factory=Majority)
    open_o3: OpenO3 = field(default_factory=OpenO3)
    self_certainty: SelfCertainty = field(default_factory=SelfCertainty)
    sparse_to_dense: SparseToDense = field(default_factory=SparseToDense)

    def __post_init__(self) -> None:
        require_least(self, 1, "at_once")
        for temperature in self.temperatures:
            right = 0 <= temperature <= MOST_TEMPERATURE
            require(right, "temperatures", self.temperatures, f"from 0 to {MOST_TEMPERATURE:g} each")

    def temperatures_of(self, method: Method) -> Sequence[float]:
        return self.temperatures or method.TEMPERATURES


@dataclass(frozen=True)
class AnswerConfig(StandalonePolicyConfig):
    """judge: the referee of the evidence; null for none. verification, referee: how it is asked. evidence: how its
    verdicts become scores, as in training. temperature: of a single answer; 0 is greedy. seed: of all that is drawn.
    file_gib: the largest video that is read."""

    judge: RefereeSource | None = None
    verification: VerificationConfig = field(default_factory=VerificationConfig)
    referee: ServiceConfig = field(default_factory=ServiceConfig)
    evidence: SerConfig = field(default_factory=SerConfig)
    election: ElectionConfig = field(default_factory=ElectionConfig)
    file_gib: float = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_above_zero(self, "file_gib")


def load(path: Path | None, overrides: Sequence[str]) -> AnswerConfig:
    """The config from a file of its own, or from a run's config.yaml. Raises BadInput."""
    layer: Path | Layer | None = path
    if path is not None and is_config_of_run(path, AnswerConfig):
        source, sections = shared_sections(path)
        known = {section.name for section in fields(AnswerConfig)}
        layer = source, {name: content for name, content in sections.items() if name in known - {"model"}}
    return load_config(AnswerConfig, layer, overrides)


def method_of(config: AnswerConfig, name: str) -> Method:
    """The election method called `name`. Raises BadInput if it is unknown, or cannot be held with this config."""
    if name not in METHODS:
        raise BadInput(f"no election {name!r:.60}; there are {', '.join(METHODS)}")
    method: Any = getattr(config.election, name)
    temperatures = config.election.temperatures_of(method)
    frames = config.contract.frames
    if isinstance(method, OpenO3) and config.judge is None:
        raise BadInput("open_o3 elects by the relevance of what each claim shows, which a referee judges; give one")
    if isinstance(method, SelfCertainty) and len(set(temperatures)) > 1:
        raise BadInput(
            f"election.temperatures = {list(temperatures)}: self_certainty compares log-probabilities, which must be "
            "drawn at one temperature; give one"
        )
    if isinstance(method, SparseToDense) and method.most_frames > frames:
        raise BadInput(
            f"election.sparse_to_dense.most_frames = {method.most_frames}: must be at most contract.frames ({frames}), "
            "the frames that are decoded; lower it and first_frames, or raise contract.frames"
        )
    fewer = max(config.election.perturb.frames, default=0)
    if fewer > frames:
        raise BadInput(f"election.perturb.frames: {fewer} must be at most contract.frames ({frames})")
    if config.election.perturb.shuffle and config.template.native_video:
        raise BadInput("election.perturb.shuffle: frames of native video have no times of their own; leave it off")
    return method
