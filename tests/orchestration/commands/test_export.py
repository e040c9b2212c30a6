"""`ser export`: transformers and a real engine load what real ranks saved; anything but a checkpoint is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from saving import save

from learner.checkpoints import Record, Saved
from orchestration import cli
from orchestration.commands.export import find_record

SHARD = "zero_pp_rank_0_mp_rank_00_optim_states.pt"
RECORD = Record("/nowhere", "", 1, "float32", False, None, {"a": Saved((1,), "model.a")}, {"step": 2}, {SHARD: 0})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A complete checkpoint without a model."""
    folder = tmp_path / "run/checkpoints/step-000002"
    folder.mkdir(parents=True)
    (folder / SHARD).touch()
    RECORD.write(folder.with_suffix(".json"))
    return folder


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    def run(*arguments: str | Path) -> str:
        assert cli.main(["export", *map(str, arguments), "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert error.startswith("ser: ")
        assert error.count("\n") == 1
        return error

    return run


def test_a_checkpoint_is_found_from_its_folder_its_run_and_its_step(checkpoint: Path) -> None:
    RECORD.write(checkpoint.with_name("step-000010.json"))
    newest, older = checkpoint.with_name("step-000010.json"), checkpoint.with_suffix(".json")
    for source, step, expected in (
        (checkpoint.parents[1], None, newest),
        (checkpoint.parents[1], 2, older),
        (checkpoint.parent, None, newest),
        (checkpoint, None, older),
    ):
        assert find_record(source, step) == expected


def test_anything_but_a_checkpoint_is_refused_in_one_line(checkpoint: Path, refused: Callable, tmp_path: Path) -> None:
    run = checkpoint.parents[1]
    record = checkpoint.with_suffix(".json")
    assert "no such folder" in refused(tmp_path / "missing")
    assert "no checkpoint" in refused(tmp_path)
    assert f"--step 7: {run} holds 2" in refused(run, "--step", "7")
    assert "--dtype" in refused(run, "--dtype", "int8")
    assert "holds no average of the weights" in refused(run, "--ema")
    assert "training began from /nowhere, which does not exist" in refused(run)
    replace(RECORD, files={SHARD: 0, "other.pt": 3}).write(record)
    assert "other.pt: is missing, and held 3 when the checkpoint was written" in refused(run)
    replace(RECORD, files={SHARD: 7}).write(record)
    assert f"{SHARD}: holds 0 bytes, and held 7 when the checkpoint was written" in refused(run)
    record.write_text('{"step": 2}')
    assert "not the record of a checkpoint" in refused(run)
    record.unlink()
    assert "no checkpoint" in refused(checkpoint), "a checkpoint without its record is incomplete"
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_is_not_overwritten(checkpoint: Path, refused: Callable, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").touch()
    replace(RECORD, model=str(tmp_path)).write(checkpoint.with_suffix(".json"))
    assert "already holds files; name a new folder" in refused(checkpoint)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_a_base_model_that_has_changed_is_refused(checkpoint: Path, refused: Callable, tmp_path: Path) -> None:
    replace(RECORD, model=str(tmp_path)).write(checkpoint.with_suffix(".json"))
    assert f"another model than {tmp_path} holds now" in refused(checkpoint)


@pytest.mark.slow
def test_transformers_and_an_engine_load_the_weights_that_the_learner_trained(
    ray_cluster: Any, tiny_model: Path, encoder: Any, run: Callable, video_prompt: tuple, tmp_path: Path
) -> None:
    from reference import Reference

    from learner.algorithm import AlgorithmConfig
    from learner.packing.shared_prefix import make_unit
    from learner.packing.step import MicroLayout, StepTargets, gather_tokens, lay_out, with_targets
    from learner.settings import LossConfig, PackingConfig, RankConfig, ZeroConfig
    from learner.zero.average import read_average
    from orchestration.supervision.learner_gang import LearnerGang
    from rollout.engine import Engine, EngineConfig

    model = shutil.copytree(tiny_model, tmp_path / "model")
    loss, zero = LossConfig(AlgorithmConfig()), ZeroConfig(ema=0.5)
    gang = LearnerGang(RankConfig(str(model), encoder.banned_ids, loss=loss, zero=zero), 2)
    prompt, frames = video_prompt

    def layouts(completions: list[np.ndarray]) -> list[list[MicroLayout]]:
        return lay_out([make_unit([prompt] * 4, completions, [("clip", frames)])], 2, PackingConfig("none"))

    rng = np.random.default_rng(0)
    for _ in range(2):
        ids = [rng.integers(0, 200, 8).astype(np.int32) for _ in range(4)]
        advantages = np.repeat(rng.normal(size=4), 8).astype(np.float32)
        targets = StepTargets(np.full(32, 1 / 32, np.float32), advantages, np.full(32, -6.2, np.float32))
        gang.train_step(with_targets(layouts(ids), targets), 1e-3)
    save(gang, tmp_path / "run/checkpoints", 2)
    gang.export(tmp_path / "live", "float32")
    out = tmp_path / "exported"
    assert cli.main(["export", str(tmp_path / "run"), "--out", str(out), "--dtype", "float32"]) == 0
    assert cli.main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "average"), "--ema"]) == 0

    engine = run(Engine.start(EngineConfig(str(out)), encoder.banned_ids))
    drawn = run(engine.generate(prompt, frames, 4, 1.0, 48, seed=1))
    run(engine.stop())

    laid_out = layouts([t.token_ids for t in drawn])
    ours = gather_tokens(laid_out, gang.logprobs(laid_out))
    gang.stop()
    np.testing.assert_allclose(ours, np.concatenate([t.logprobs for t in drawn]), atol=1e-5)
    reference = Reference(out, encoder.banned_ids)
    theirs = [reference.logprobs(prompt, frames, t.token_ids, 1.0) for t in drawn]
    np.testing.assert_allclose(ours, np.concatenate(theirs), atol=1e-5)
    before = Reference(tiny_model, encoder.banned_ids)
    assert np.abs(ours[: len(theirs[0])] - before.logprobs(prompt, frames, drawn[0].token_ids, 1.0)).max() > 1e-3

    live = dict(Reference(tmp_path / "live", ()).model.named_parameters())
    average = dict(Reference(tmp_path / "average", ()).model.named_parameters())
    record = find_record(tmp_path / "run", 2)
    expected = dict(before.model.named_parameters())
    expected |= read_average(record.with_suffix(""), 2, Record.read(record).parameters)
    for name, weight in reference.model.named_parameters():
        assert torch.equal(weight, live[name]), name
        assert torch.equal(average[name], expected[name].bfloat16().float()), name
