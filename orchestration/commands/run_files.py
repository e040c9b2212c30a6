"""The config.yaml of a training run, as the config of commands that judge what the run wrote or run its model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from evidence.errors import BadInput
from evidence.spaces import Written
from orchestration.config import Layer, load_config, unknown_keys
from orchestration.settings import TrainConfig
from orchestration.supervision.engines import engine_sizes
from orchestration.supervision.standalone_policy import StandalonePolicyConfig
from orchestration.supervision.standalone_referee import StandaloneConfig
from rollout.prompt import ChatEncoder, printed_times

# Sections with the same meaning in a run and in the judgement of its files.
SHARED = ("contract", "template", "verification", "referee", "frames", "cluster", "limits")
OF_POLICY = ("contract", "template", "frames", "cluster", "limits")


def is_run_config(path: Path) -> bool:
    """Whether a file is a config of `ser train` and not of a judging command. Raises BadInput for an unreadable one."""
    return is_config_of_run(path, StandaloneConfig)


def is_config_of_run(path: Path, schema: Any) -> bool:
    """Whether a file is a config of `ser train` and not one of `schema`. Raises BadInput for an unreadable one."""
    return bool(unknown_keys(schema, path)) and not unknown_keys(TrainConfig, path)


def policy_config(path: Path | None, overrides: list[str]) -> StandalonePolicyConfig:
    """The config of a policy outside training, from a file of its own or from a run's. Raises BadInput."""
    if path is None or not is_config_of_run(path, StandalonePolicyConfig):
        return load_config(StandalonePolicyConfig, path, overrides)
    run = load_config(TrainConfig, path)
    sections = {name: _plain(getattr(run, name)) for name in OF_POLICY}
    own = {"engine": _plain(engine_sizes(run)), "max_tokens": run.sampling.max_tokens, "model": run.model.policy}
    return load_config(StandalonePolicyConfig, (str(path), {**sections, **own}), overrides)


def judging_config(path: Path | None, overrides: list[str]) -> StandaloneConfig:
    """The config of a referee outside training, from a file of its own or from a run's. Raises BadInput."""
    if path is None or not is_run_config(path):
        return load_config(StandaloneConfig, path, overrides)
    return load_config(StandaloneConfig, _shared(path, load_config(TrainConfig, path)), overrides)


def run_for_calibration(path: Path) -> Layer:
    """What a run's config says about the calibration of its (first) referee on its held-out data. Raises BadInput."""
    run = load_config(TrainConfig, path)
    source, shared = _shared(path, run)
    model = {**shared["model"], "referee": _plain(run.model.referee[0])}
    return source, {**shared, "model": model, "data": _plain(run.data.heldout), "seed": run.seed}


def shared_sections(path: Path) -> Layer:
    """What a run's config says about prompts, frames, engines and verdicts. Raises BadInput."""
    return _shared(path, load_config(TrainConfig, path))


def written(config: StandaloneConfig) -> Written:
    """How the policy of `config` writes. Raises BadInput if its family chooses the printed times and is not known."""
    template, encoder = config.template, None
    if template.native_video:
        if config.model.policy is None:
            raise BadInput(
                "model.policy: must be set with template.native_video = true, since the policy's family chooses the "
                "times that its prompt prints; give its folder, or a run's config.yaml, by --config"
            )
        encoder = ChatEncoder(config.model.policy)
    return Written(template.box_space, partial(printed_times, template, encoder=encoder))


def _shared(path: Path, run: TrainConfig) -> Layer:
    sections = {name: _plain(getattr(run, name)) for name in SHARED}
    return str(path), {**sections, "engine": _plain(engine_sizes(run)), "model": {"policy": run.model.policy}}


def _plain(section: Any) -> Any:
    return OmegaConf.to_container(OmegaConf.structured(section))
