"""`ser calibrate`: one line for bad input, the claims that are asked about, and one real run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evidence.types import FrameInfo
from orchestration import cli
from orchestration.commands.ask_many import ReadableSample
from orchestration.commands.calibrate import CalibrateConfig, Given, _claims
from referee.reward.recorded import RecordedCompletion
from referee.service.engine_backend import model_digest
from referee.service.sources import read_calibration
from referee.trust.ratings import RatedClaim
from rollout.dataset import read_dataset
from rollout.dataset.mix import DataFile
from rollout.dataset.shapes import make_shapes

ROOT = Path(__file__).parents[3]
CONFIG = str(ROOT / "configs/calibrate/shapes.yaml")
INFO = FrameInfo("k", tuple(map(float, range(8))), (56, 56), (112, 112), 7.25)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world") / "shapes"
    make_shapes(out, train=0, val=0, test=12, seed=30_000, workers=1)
    return out / "test.json"


@pytest.fixture(scope="module")
def clips(shapes: Path) -> list[ReadableSample]:
    return [ReadableSample(sample, INFO) for sample in read_dataset(shapes)]


def config(shapes: Path) -> CalibrateConfig:
    return CalibrateConfig(data=DataFile(str(shapes)))


def test_claims_made_from_boxes_are_reproducible(shapes, clips):
    claims = _claims(config(shapes), clips, Given())
    assert len(claims) == 12 * 6
    assert [claim for _, claim, _ in claims] == [claim for _, claim, _ in _claims(config(shapes), clips, Given())]


def test_boxes_of_rated_claims_are_converted_to_pixels_of_the_shown_frames(shapes, clips):
    sample = clips[3].sample.id
    rated = RatedClaim(sample, "red circle", (0.25, 0.5, 0.5, 1.0), 2.0, {"ann": (2, 1), "bob": (2, 2)})
    ((clip, claim, known),) = _claims(config(shapes), clips, Given(ratings=[rated]))
    assert (clip, claim.phrase, claim.box, claim.time) == (3, "red circle", (14, 28, 28, 56), 2.0)
    assert known.grade == {"relevance": 1.0, "localization": 0.75, "product": 0.75}


def test_recorded_claims_are_labelled_from_the_boxes(shapes, clips):
    sample = clips[0].sample
    recorded = [RecordedCompletion("", sample.id, text) for text in (sample.reasoning or "", "<think></think>")]
    claims = _claims(config(shapes), clips, Given(completions=recorded))
    assert len(claims) == (sample.reasoning or "").count("<box>") > 0
    for clip, _, known in claims:  # boxes as a hurried annotator draws them: around the right object, but too large
        assert (clip, known.grade["relevance"]) == (0, 1.0)
        assert 0.3 < known.truth["localization"] == known.truth["relevance"] < 1


def test_boxes_in_pixels_of_another_frame_size_are_converted(shapes, clips):
    sample = clips[0].sample
    doubled = "<think><obj>red circle</obj><box>[20,24,60,80]</box>at<t>1.0</t>s</think>"
    ((_, claim, _),) = _claims(
        config(shapes), clips, Given(completions=[RecordedCompletion("", sample.id, doubled, (112, 112))])
    )
    assert claim.box == (10, 12, 30, 40)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["data={shapes}"], "out has no value"),
        (["data={shapes}", "out={folder}"], "already exists; name a new folder"),
        (["data={folder}/none.json", "out={folder}/new"], "none.json"),
        (["data={shapes}", "out={folder}/new", "samples=0"], "samples = 0"),
        (["data={shapes}", "out={folder}/new", "resample=1"], "the nearest known one is resamples"),
        (["data={shapes}", "out={folder}/new", "model.referee={folder}"], "no model here"),
        (["data={shapes}", "out={folder}/new", "--second", "{folder}"], "no model here"),
        (
            [
                "data={shapes}",
                "out={folder}/new",
                "contract.multiple=null",
                "model.referee={{url: 'http://x', model: m}}",
            ],
            "contract.multiple = null: must be set where every referee is an endpoint",
        ),
        (["data={shapes}", "out={folder}/new", "--ratings", "{folder}/none.csv"], "cannot be read"),
        (["data={shapes}", "out={folder}/new", "--ratings", "{folder}/alien.csv"], "sample 'alien' is not in"),
        (
            ["data={shapes}", "out={folder}/new", "--ratings", "a", "--completions", "b"],
            "both supply the claims; give one of them",
        ),
        (["data={shapes}", "--attacks", "--second", "b"], "leave out"),
        (["data={shapes}", "--attacks", "attacks=5"], "attacks = 5: must be 14 or more, one of each kind"),
    ],
)
def test_bad_input_is_one_line_and_starts_nothing(shapes, tmp_path, capsys, monkeypatch, arguments, part):
    import ray

    def start(*args: object, **kwargs: object) -> None:
        raise AssertionError("Ray was started despite bad input")

    monkeypatch.setattr(ray, "init", start)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "alien.csv").write_text(
        "sample,object,box,time,rater,relevance,localization\nalien,cat,0 0 1 1,0,ann,1,1\n"
    )
    filled = [text.format(shapes=shapes, folder=tmp_path) for text in arguments]
    assert cli.main(["calibrate", CONFIG, f"model.referee={ROOT}/assets/referee", *filled]) == 2
    error = capsys.readouterr().err
    assert part in error
    assert error.startswith("ser: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_referee_calibrated_on_ratings_agrees_with_itself(shapes, tmp_path):
    """A real run on rated claims, with the same referee as the second one."""
    lines = ["sample,object,box,time,rater,relevance,localization"]
    for sample in read_dataset(shapes):
        key = sample.key_frames[0]
        for phrase, boxes in sample.key_items.get(key.idx, {}).items():
            box = " ".join(map(str, boxes[0]))
            relevance = 2 if phrase in sample.question else 0
            lines += [f"{sample.id},{phrase},{box},{key.time},{rater},{relevance},2" for rater in ("ann", "bob")]
    ratings, out, referee = tmp_path / "ratings.csv", tmp_path / "out", str(ROOT / "assets/referee")
    ratings.write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "orchestration", "calibrate", CONFIG, f"data={shapes}", f"out={out}"]
    flags = [f"model.referee={referee}", "resamples=50", "--ratings", str(ratings), "--second", referee, "--json"]
    process = subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr
    report = json.loads(process.stdout)
    assert report["second"]["localization"]["spearman"]["value"] == 1.0
    assert report["second"]["claims"] == (len(lines) - 1) / 2
    assert report["raters"][0]["kappa"]["relevance"] == 1.0
    read_calibration(out / "calibration.json").require(model_digest(referee))
    expected = {"calibration.json", "config.yaml", "report.json", "reliability.png", "thresholds.png", "strata.png"}
    assert {path.name for path in out.iterdir()} == expected
