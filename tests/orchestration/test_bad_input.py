"""Bad input gives one line on stderr with the key, the fault and the remedy, exit code 2, and leaves no files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from evidence.digests import model_digest
from learner.checkpoints import Record
from orchestration import cli
from rollout.dataset.shapes import make_shapes

ROOT = Path(__file__).parents[2]
Refused = Callable[..., str]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world") / "shapes"
    make_shapes(out, train=4, val=0, test=4, questions=1, workers=1)
    return out


@pytest.fixture
def world(shapes: Path, tmp_path: Path) -> Path:
    """A copy of the shapes that a test may damage."""
    return shutil.copytree(shapes, tmp_path / "world")


@pytest.fixture
def train(world: Path, tmp_path: Path, refused: Refused) -> Refused:
    """Runs the quickstart on `world` with overrides and asserts that it is refused before anything is written."""

    def run(*overrides: str) -> str:
        config = ROOT / "configs/experiment/quickstart.yaml"
        good = [
            f"data.train={world}/train.json",
            f"data.heldout={world}/test.json",
            f"model.policy={ROOT}/assets/policy",
            f"model.referee={ROOT}/assets/referee",
            f"run_dir={tmp_path}/run",
            "eval.samples=4",
        ]
        before = sorted(tmp_path.rglob("*"))
        error = refused("train", config, *good, *overrides)
        assert sorted(tmp_path.rglob("*")) == before
        return error

    return run


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("learner.schedule.lrr=1", ["learner.schedule.lrr", "the nearest known one is learner.schedule.lr"]),
        ("steps=many", ["steps = 'many'", "a whole number"]),
        ("learner=fast", ["learner = 'fast'", "a section with the keys"]),
        ("steps=0", ["steps = 0", "1 or more"]),
        ("learner.ranks=0", ["learner.ranks = 0", "1 or more"]),
        ("learner.ranks=9", ["learner.ranks = 9", "at most pacing.groups_per_step (8)"]),
        ("cluster.rollout_engines=0", ["cluster.rollout_engines = 0", "1 or more"]),
        ("cluster.frames_gib=5", ["cluster.frames_gib = 5", "below object_store_gib (1.0)"]),
        ("cluster.frames_gib=1e-5", ["cluster.frames_gib = 1e-05", "at least", "lower contract.frames"]),
        ("cluster.gpu_memory_utilization=1", ["cluster.gpu_memory_utilization = 1.0", "below 1"]),
        ("cluster.gpus_per_rank=0.5", ["cluster.gpus_per_rank = 0.5", "0 or 1"]),
        ("cluster.gpus_per_engine=1.5", ["cluster.gpus_per_engine = 1.5", "a fraction of one GPU, or a whole number"]),
        (
            "cluster.gpus_per_engine=0.4",
            ["cluster.gpu_memory_utilization = 0.85: 2 engines share a GPU", "together at most 1, not 1.7"],
        ),
        ("cluster.tensor_parallel=2", ["cluster.tensor_parallel = 2", "1, or gpus_per_engine (0)"]),
        ("cluster.tensor_parallel=0", ["cluster.tensor_parallel = 0", "1, or gpus_per_engine (0)"]),
        ("frames.decoder=ffmpeg", ["frames.decoder = ffmpeg", "one of decord, pyav"]),
        ("frames.workers=0", ["frames.workers = 0", "1 or more"]),
        ("contract.total_pixels=1000", ["contract.total_pixels = 1000", "raise it"]),
        ("cluster.object_store_gib=100000", ["cluster.object_store_gib = 100000", "GiB free", "ask for less"]),
        ("sampling.max_model_len=120", ["sampling.max_model_len = 120", "raise it"]),
        (
            "contract={max_pixels: 700, min_pixels: 100, multiple: null}",
            ["contract.max_pixels = 700", "one tile of 28 x 28"],
        ),
        ("contract.multiple=14", ["contract.multiple = 14", "the policy takes tiles of 28 pixels"]),
        ("verification.crop_size=[56,30]", ["verification.crop_size = [56, 30]", "multiples of 28"]),
        ("frames.cache_dir=/dev/null/none", ["frames.cache_dir = /dev/null/none", "/dev/null is a file"]),
        ("reward.terms.ser.options.m_min=0", ["override reward.terms.ser.options.m_min=…: ", "1 or more"]),
        ("referee.attempts=0", ["referee.attempts = 0", "1 or more"]),
        ("referee.cache_dir=/dev/null/none", ["referee.cache_dir = /dev/null/none", "/dev/null is a file"]),
        (
            "model.referee={model: m, url: 'http://127.0.0.1:1/v1', api_key_env: SER_TEST_NO_SUCH_KEY}",
            ["api_key_env = SER_TEST_NO_SUCH_KEY", "that variable is not set"],
        ),
        (
            f"model.referee={{model: {ROOT}/assets/referee, calibration: none.json}}",
            ["none.json: cannot be read", "`ser calibrate` writes it"],
        ),
        ("pacing.staleness=-1", ["pacing.staleness = -1", "0 or more"]),
        ("seed=-1", ["seed = -1", "0 or more"]),
        ("learner.schedule.lr=inf", ["learner.schedule.lr = inf", "finite"]),
        ("learner.schedule.warmup=-1", ["learner.schedule.warmup = -1", "0 or more"]),
        ("learner.zero.betas=[1.5,2]", ["learner.zero.betas = [1.5, 2.0]", "below 1"]),
        ("algorithm=rler", ["learner.reference.kind = none", "frozen or lora_off", "sets a KL penalty"]),
        ("learner.reference=frozen", ["learner.reference.kind = frozen", "must be none", "nothing would use it"]),
        ("learner.reference=lora_off", ["learner.reference.kind = lora_off", "no learner.policy.lora"]),
        ("learner.reference={kind: lora_off, ranks: 2}", ["learner.reference.ranks = 2", "only a frozen reference"]),
        ("learner.policy.vision_lr_factor=0.1", ["learner.policy.vision_lr_factor = 0.1", "set train_vision"]),
        ("algorithm.correction.high=8", ["algorithm.correction.high = 8", "with mode none it has no effect"]),
        ("learner.packing.mode=rows", ["learner.packing.mode = rows", "one of none, sequence, prefix"]),
        ("algorithm={baseline: none, divide_by_std: true}", ["algorithm.divide_by_std = True", "baseline none"]),
        ("algorithm={baseline: none, dynamic_sampling: true}", ["algorithm.dynamic_sampling = True", "baseline none"]),
        ("sampling.max_num_seqs=0", ["sampling.max_num_seqs = 0", "1 or more"]),
        ("eval.samples=-1", ["eval.samples = -1", "0 or more, or null for up to 512"]),
        ("eval.samples=5", ["eval.samples = 5", "test.json has 4 samples", "set a lower value"]),
        ("eval.every=0", ["eval.every = 0", "1 or more, or null"]),
        ("eval={every: 2, samples: 0}", ["eval.every = 2", "nothing would be evaluated"]),
        ("eval.benchmarks=[{name: data, data: x.json}]", ["eval.benchmarks = data", "empty without `every`"]),
        ("eval={every: 2, benchmarks: [{name: heldout, data: x}]}", ["benchmarks = heldout", "different names"]),
        (
            "eval={every: 2, benchmarks: [{name: mmbench, data: x}]}",
            ["eval.benchmarks: mmbench: ", "no such benchmark"],
        ),
        ("eval={every: 2, benchmarks: [{name: mvbench, data: x.json}]}", ["eval.benchmarks: mvbench: ", "x.json"]),
        ("checkpoint.best=heldout/reward", ["checkpoint.best = heldout/reward", "null without eval.every"]),
    ],
)
def test_an_impossible_value_is_refused(train: Refused, override: str, parts: list[str]) -> None:
    error = train(override)
    assert all(part in error for part in parts), error


@pytest.mark.parametrize(
    ("best", "part"),
    [
        ("reward", "must be SET/METRIC with one of the sets heldout, again"),
        ("heldout/acc", "the metrics of heldout are reward, accuracy, "),
        ("again/reward", "the metrics of again are acc, "),
    ],
)
def test_the_best_checkpoint_is_one_by_a_metric_that_is_measured(
    train: Refused, world: Path, best: str, part: str
) -> None:
    evaluation = f"eval={{every: 2, benchmarks: [{{name: data, data: {world}/test.json, set: again}}]}}"
    assert f"checkpoint.best = {best}: {part}" in train(evaluation, f"checkpoint.best={best}")


def test_a_token_budget_below_one_prompt_and_completion_is_refused(train: Refused) -> None:
    error = train("learner.packing.token_budget=100")
    assert "learner.packing.token_budget = 100: a prompt of " in error
    least = int(re.search(r"a completion take (\d+) tokens; raise it", error)[1])
    assert str(least) in train(f"learner.packing.token_budget={least - 1}")
    enough = f"learner.packing.token_budget={least}"
    assert "frames.cache_dir = /dev/null/none" in train(enough, "frames.cache_dir=/dev/null/none")  # a later check


@pytest.mark.parametrize(
    ("run_dir", "part"),
    [
        ("/proc/x", "run_dir = /proc/x: cannot be written to"),
        ("", "no value"),
        ("{}/" + "a" * 300, "File name too long"),
    ],
)
def test_a_run_directory_that_cannot_be_made_is_refused(
    train: Refused, tmp_path: Path, run_dir: str, part: str
) -> None:
    assert part in train(f"run_dir={run_dir.format(tmp_path)}")


def test_a_kl_penalty_on_the_reward_that_its_normalisation_would_drop_is_refused(train: Refused) -> None:
    kl = "algorithm.kl={coefficient: 0.1, where: reward}"
    error = train(kl, "learner.reference=frozen", "reward.normalise=each")
    assert "algorithm.kl.where = reward" in error
    assert "loss with reward.normalise = each" in error


def test_a_missing_config_file_is_refused(refused: Refused) -> None:
    error = refused("train", ROOT / "configs/experiment/quickstrat.yaml")
    assert "quickstrat.yaml: no such file; nearby: " in error
    assert "quickstart.yaml" in error


@pytest.mark.parametrize("key", ["data.train", "data.heldout"])
def test_a_missing_dataset_is_refused(train: Refused, world: Path, key: str) -> None:
    error = train(f"{key}={world}/trian.json")
    assert f"{world}/trian.json: no such dataset file; in that folder: " in error


BROKEN = {
    "[]": ["the dataset is empty", "at least one sample"],
    "": ["the dataset is empty", "at least one sample"],
    '{"id": 1}\n{id: 2}': ["line 2: not JSON"],
    '[{"id": 1, "task": "general", "answer": "left", "video_path": "a.mp4"}]': ["sample 1", "'question'", "missing"],
    "[3]": ["sample 1", "a JSON object"],
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_dataset_is_refused(train: Refused, refused: Refused, world: Path, text: str) -> None:
    (world / "train.json").write_text(text)
    for error in (train(), refused("data", "check", world / "train.json")):
        assert error.startswith(f"ser: {world}/train.json: ")
        assert all(part in error for part in BROKEN[text]), error


def test_a_dataset_without_its_media_is_refused(train: Refused, refused: Refused, world: Path) -> None:
    shutil.rmtree(world / "videos")
    for error in (train(), refused("data", "check", world / "train.json")):
        assert f"{world}/train.json" in error
        assert ".mp4" in error


@pytest.mark.parametrize("key", ["model.policy", "model.referee"])
def test_a_folder_without_a_model_is_refused(train: Refused, world: Path, key: str) -> None:
    error = train(f"{key}={world}")
    assert f"{world}: no model here" in error
    assert "Hugging Face" in error


@pytest.mark.parametrize("key", ["model.policy", "model.referee"])
def test_a_model_of_an_unsupported_family(train: Refused, tmp_path: Path, key: str) -> None:
    (tmp_path / "llava").mkdir()
    (tmp_path / "llava/config.json").write_text('{"model_type": "llava"}')
    error = train(f"{key}={tmp_path}/llava")
    assert f"{tmp_path}/llava: model_type = llava: must be qwen2_5_vl or " in error


# Damage to a model's folder: the file, its new content (None: without the file), and what the message says.
DAMAGES = {
    "broken": ("generation_config.json", "{", "generation_config.json: not valid JSON"),
    "no end token": ("tokenizer_config.json", '{"eos_token": null}', "no end-of-sequence token"),
    "no template": ("chat_template.jinja", None, "no chat template"),
}


@pytest.mark.parametrize(("file", "content", "words"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_model_folder_is_refused(
    train: Refused, refused: Refused, world: Path, tmp_path: Path, file: str, content: str | None, words: str
) -> None:
    model = shutil.copytree(ROOT / "assets/policy", tmp_path / "model")
    if content is None:
        (model / file).unlink()
    else:
        (model / file).write_text(content, encoding="utf-8")
    run = tmp_path / "run/checkpoints/step-000001"
    run.mkdir(parents=True)
    (run / "zero_pp_rank_0_mp_rank_00_optim_states.pt").touch()
    Record(str(model), model_digest(str(model)), 1, "float32", False, None, {}, {"step": 1}, {}).write(
        run.with_suffix(".json")
    )
    sft = [
        f"model={model}",
        f"run_dir={tmp_path}/sft",
        f"out={tmp_path}/out",
        f"stages=[{{data: {world}/train.json, steps: 1}}]",
    ]
    for error in (
        train(f"model.policy={model}", f"run_dir={tmp_path}/other"),
        train(f"model.referee={model}", f"run_dir={tmp_path}/other"),
        refused("sft", ROOT / "configs/sft/policy.yaml", *sft),
        refused("export", run, "--out", tmp_path / "exported"),
    ):
        assert str(model) in error
        assert words in error


@pytest.mark.parametrize("content", [b"", b"not a video"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_dataset_without_a_readable_video_is_refused(train: Refused, world: Path, split: str, content: bytes) -> None:
    for video in (world / "videos" / split).rglob("*.mp4"):
        video.write_bytes(content)
    error = train()
    assert f"{world}/{split}.json: none of its media files can be read" in error
    assert "--media` lists them all" in error


def test_a_run_directory_that_holds_a_run_is_refused(train: Refused, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").touch()
    assert "already holds a run; go on with it by resume=auto" in train()


def test_a_run_directory_that_is_a_file_is_refused(train: Refused, tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    error = train(f"run_dir={tmp_path}/run/within")
    assert f"{tmp_path}/run is a file; name a folder" in error


@pytest.mark.parametrize("content", [b"", b"not a video", None])
def test_data_check_finds_a_video_that_cannot_be_decoded(
    refused: Refused, capsys: pytest.CaptureFixture[str], world: Path, content: bytes | None
) -> None:
    video = world / json.loads((world / "test.json").read_text())[2]["video_path"]
    video.write_bytes(video.read_bytes()[:3000] if content is None else content)
    assert cli.main(["data", "check", str(world / "test.json")]) == (2 if content == b"" else 0)
    error = refused("data", "check", world / "test.json", "--media")
    assert f"{world}/test.json: 1 of its media files" in error
    assert str(video) in error
    assert "repair the files, or remove" in error


@pytest.mark.parametrize("numbers", [("--train", "-1"), ("--questions", "0"), ("--workers", "0"), ("--seed", "-1")])
def test_make_shapes_refuses_numbers_out_of_range(refused: Refused, tmp_path: Path, numbers: tuple[str, str]) -> None:
    error = refused("data", "make-shapes", tmp_path / "new", *numbers)
    assert "make-shapes" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["", "..", "checkpoints", "initial", "../theirs"])
def test_sft_does_not_replace_a_folder_that_is_not_its_own(refused: Refused, tmp_path: Path, out: str) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/thesis.txt").touch()
    error = refused("sft", ROOT / "configs/sft/policy.yaml", f"run_dir={tmp_path}/run", f"out={tmp_path}/run/{out}")
    assert f"out = {tmp_path}/run/{out}" in error
    assert (tmp_path / "theirs/thesis.txt").exists()


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (
            ["sampling.max_model_len=900000000"],
            ["engine: 0.85 of", "GiB for the KV cache", "sampling.max_model_len = 900000000 needs", "or lower"],
        ),
        (["cluster.object_store_gib=0.401"], ["cluster.object_store_gib = 0.401", "2 weight versions", "raise it"]),
    ],
)
def test_what_does_not_fit_gpus_is_refused(train: Refused, overrides: list[str], parts: list[str]) -> None:
    gpus = ["cluster.gpus_per_engine=1", "cluster.gpus_per_rank=1"]
    error = train(*gpus, *overrides)
    for part in parts:
        assert part in error
