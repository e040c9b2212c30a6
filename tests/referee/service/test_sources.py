"""Configs of referees, calibration files, and ensembles."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from evidence.errors import BadInput
from evidence.types import Verdict
from orchestration.config import load_config, to_yaml
from orchestration.settings import TrainConfig
from referee.service.ensemble import combine_verdicts
from referee.service.sources import Calibration, RefereeSource, read_calibration

NEEDED = ["data.train=a", "data.heldout=b", "model.policy=p", "steps=3", "run_dir=runs/x", "reward=ser"]
URL = "http://127.0.0.1:8000/v1"


def referees(*overrides: str) -> list[RefereeSource]:
    return load_config(TrainConfig, None, [*NEEDED, *overrides]).model.referee


def test_a_referee_may_be_given_by_its_folder_alone():
    assert referees("model.referee=assets/referee") == [RefereeSource("assets/referee")]
    assert referees("model.referee=[a, {model: b, replicas: 2}]") == [
        RefereeSource("a"),
        RefereeSource("b", replicas=2),
    ]


def test_an_endpoint_is_read_back_from_the_resolved_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")
    endpoint = f"{{model: m, url: '{URL}', api_key_env: JUDGE_KEY, extra_body: {{a: {{choice: <scale>}}, b: [1, x]}}}}"
    config = load_config(TrainConfig, None, [*NEEDED, f"model.referee={endpoint}"])
    (source,) = config.model.referee
    assert source.extra_body == {"a": {"choice": "<scale>"}, "b": [1, "x"]}
    assert source.api_key() == "sk-very-secret"
    resolved = to_yaml(config)
    assert "JUDGE_KEY" in resolved
    assert "sk-very-secret" not in resolved + repr(config) + str(asdict(config))
    (tmp_path / "config.yaml").write_text(resolved)
    assert load_config(TrainConfig, tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("model.referee=[]", ["model.referee = []", "at least one referee"]),
        ("model.referee={modle: a}", ["unknown key model.referee.0.modle", "model.referee.0.model"]),
        ("model.referee={model: a, replicas: 0}", ["replicas = 0", "1 or more"]),
        ("model.referee={model: a, version: '2'}", ["version", "give its url"]),
        ("model.referee={model: a, url: '127.0.0.1:8000'}", ["url = 127.0.0.1:8000", "http://"]),
        (f"model.referee={{model: a, url: '{URL}', replicas: 2}}", ["replicas = 2", "referee.max_concurrent"]),
        ("referee.attempts=0", ["referee.attempts = 0", "1 or more"]),
    ],
)
def test_invalid_referees_are_refused(override: str, parts: list[str]):
    with pytest.raises(BadInput) as refused:
        referees("model.referee=r", override)
    assert "\n" not in str(refused.value)
    assert all(part in str(refused.value) for part in parts), refused.value


@pytest.mark.parametrize(
    "fields",
    [
        {"url": URL, "api_key_env": "sk-very-secret"},
        {"url": "http://user:sk-very-secret@host/v1"},
        {"url": "http://host/v1?key=sk-very-secret"},
    ],
)
def test_a_key_in_the_wrong_place_is_refused_without_repeating_it(fields: dict[str, str]):
    override = f"model.referee={json.dumps({'model': 'm', **fields})}"
    with pytest.raises(BadInput, match=r"model\.referee\.0\.(api_key_env|url): must ") as refused:
        referees(override)
    assert "secret" not in str(refused.value)


def calibration(folder: Path, content: Any) -> Path:
    file = folder / "calibration.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_a_calibration_is_valid_for_one_referee(tmp_path: Path):
    file = calibration(tmp_path, {"temperature": {"relevance": 2, "localization": 0.5}, "referee": "abc", "ece": 0.1})
    loaded = read_calibration(file)
    assert loaded == Calibration(str(file), "abc", {"relevance": 2.0, "localization": 0.5})
    loaded.require("abc")
    with pytest.raises(BadInput, match=rf"{file}: made for the referee abc, but this one is def; run `ser calibrate`"):
        loaded.require("def")


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        {"referee": "abc"},
        {"temperature": {"relevance": 1}, "referee": "abc"},
        {"temperature": {"relevance": 1, "localization": 0}, "referee": "abc"},
        {"temperature": {"relevance": 1, "localization": "NaN"}, "referee": "abc"},
        {"temperature": {"relevance": 1, "localization": None}, "referee": "abc"},
        {"temperature": {"relevance": 1, "localization": 1}, "referee": 3},
    ],
)
def test_files_that_are_not_calibrations_are_refused(tmp_path: Path, content: Any):
    with pytest.raises(BadInput, match=r"calibration.json: not a calibration; must contain"):
        read_calibration(calibration(tmp_path, content))


def test_a_missing_calibration_file_is_refused(tmp_path: Path):
    with pytest.raises(BadInput, match=r"none.json: cannot be read \(No such file or directory\)"):
        read_calibration(tmp_path / "none.json")


def test_an_ensembles_verdict_is_the_mean_and_its_disagreement_the_mean_difference():
    a, b, c = Verdict(1.0, 0.2), Verdict(0.4, 0.2), Verdict(0.1, 0.8)
    (of_one,) = combine_verdicts([[a]])
    assert of_one == a
    (of_two,) = combine_verdicts([[a], [b]])
    assert (of_two.relevance, of_two.localization) == pytest.approx((0.7, 0.2))
    assert of_two.disagreement == pytest.approx((0.6 + 0) / 2)
    (of_three,) = combine_verdicts([[a], [b], [c]])
    assert (of_three.relevance, of_three.localization) == pytest.approx((0.5, 0.4))
    assert of_three.disagreement == pytest.approx(((0.6 + 0.9 + 0.3) / 3 + (0 + 0.6 + 0.6) / 3) / 2)


def test_one_missing_verdict_leaves_the_ensemble_without_a_verdict():
    a = Verdict(1.0, 1.0)
    assert combine_verdicts([[a, None, a], [None, a, a]]) == [None, None, a]
    with pytest.raises(ValueError, match="shorter"):
        combine_verdicts([[a], []])
