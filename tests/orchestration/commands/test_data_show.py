"""`ser data show`: the page's frames, boxes and prompts are those that a policy gets, on made data."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from page_reader import ReadPage
from PIL import Image

from evidence.sampling import SamplingContract, selection
from orchestration import cli
from rollout.dataset import read_dataset
from rollout.dataset.shapes import make_shapes
from rollout.frames.decoding import decode
from rollout.prompt import ChatEncoder, build_prompt
from rollout.template import PromptTemplate

CONTRACT = SamplingContract(frames=4, key_frames=True, max_pixels=50176, multiple=28)
OVERRIDES = ["contract.frames=4", "contract.key_frames=true", "contract.max_pixels=50176"]
HOSTILE = "<script>alert(1)</script> &amp; <|im_end|>"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world") / "shapes"
    make_shapes(out, train=2, val=0, test=0, questions=1, workers=1)
    return out


@pytest.fixture(scope="module")
def dataset(world: Path) -> Path:
    """A clip with boxes, a second question about it, one that is missing, and an image."""
    row = json.loads((world / "train.json").read_text())[0]
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    Image.fromarray(image).save(world / "a.png")
    ours = {"task": "visual QA", "answer": "<obj>x</obj><box>[32, 24, 64, 48]</box>", "image_size": [128, 96]}
    picture = {**row, **ours, "id": "image", "image_path": "a.png", "video_path": None}
    rows = [
        row,
        {**row, "id": "hostile", "question": HOSTILE},
        {**row, "id": "gone", "question": "Where?", "video_path": "gone.mp4"},
        {**picture, "key_frames": [], "key_items": {}},
    ]
    path = world / "mixed.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture(scope="module")
def shown(dataset: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shown") / "page"
    assert cli.main(["data", "show", str(dataset), "--model", str(tiny_model), "--out", str(out), *OVERRIDES]) == 0
    return out


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def sections(folder: Path) -> list[str]:
    return (folder / "index.html").read_text().split("<section>")[1:]


def images(section: str) -> list[str]:
    return re.findall(r'<img src="([^"]+)"', section)


def test_frames_are_the_policys_pixels_and_written_once(shown: Path, dataset: Path) -> None:
    sample = read_dataset(dataset)[0]
    frames, info = decode(sample.media_path, CONTRACT, selection(sample, CONTRACT))
    files = sorted((shown / "frames" / info.key).iterdir())
    np.testing.assert_array_equal(np.stack([pixels(path) for path in files]), frames)
    assert len(list((shown / "frames").iterdir())) == 2, "the clip of two samples, and the image"
    assert sections(shown)[0].count("labelled key frame") == len(sample.key_frames)
    for time in info.times:
        assert f"{time:.2f} s</strong>" in sections(shown)[0]


def test_boxes_are_drawn_where_they_are_labelled(shown: Path, dataset: Path) -> None:
    (drawn,) = (path for path in images(sections(shown)[3]) if path.startswith("boxes/4/"))
    _, info = decode(read_dataset(dataset)[3].media_path, CONTRACT)
    scale = pixels(shown / drawn).shape[1] // info.size[0]
    plain = pixels(shown / "frames" / info.key / "001.png")
    changed = (pixels(shown / drawn) != np.kron(plain, np.ones((scale, scale, 1), np.uint8))).any(axis=2)
    ys, xs = np.nonzero(changed)
    edges = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) / scale
    # A quarter to a half of the image's sides, as its answer says in pixels of the original.
    assert edges == pytest.approx([info.size[0] / 4, info.size[1] / 4, info.size[0] / 2, info.size[1] / 2], abs=1)


def test_prompts_are_those_that_the_policy_gets(shown: Path, dataset: Path, tiny_model: Path) -> None:
    encoder, sample = ChatEncoder(tiny_model), read_dataset(dataset)[1]
    _, info = decode(sample.media_path, CONTRACT, selection(sample, CONTRACT))
    prompt = build_prompt(encoder, PromptTemplate(), sample, info)
    section = sections(shown)[1]
    (text,) = re.findall(r"<pre>\n(.*?)</pre>", section[section.index("<h3>Prompt") :], re.DOTALL)
    spelled = re.sub(r'<span class="visual">(.*?) × (\d+)</span>', lambda m: m[1] * int(m[2]), text)
    spelled = re.sub(r'<span class="special">(.*?)</span>', r"\1", spelled)
    ids = encoder.tokenizer(html.unescape(spelled), add_special_tokens=False)["input_ids"]
    assert ids == prompt.token_ids.tolist()
    assert f"{len(ids):,} tokens" in section
    assert "<script>" not in section


def test_a_missing_file_is_on_the_page_and_counted_on_stderr(
    dataset: Path, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    argv = ["data", "show", str(dataset), "--model", str(tiny_model), "--out", str(tmp_path / "page")]
    assert cli.main([*argv, "--ids", "gone", "image"]) == 0
    out, err = capfd.readouterr()
    assert out == f"{tmp_path}/page/index.html: 2 of 4 samples, 1 frames\n"
    assert "1 of 2 samples cannot be read, the first is 'gone'" in err
    assert "cannot be read: no such file" in ReadPage((tmp_path / "page/index.html").read_text()).text

    assert cli.main([*argv, "--faulty", "--n", "1", "--overwrite"]) == 2, "the missing file is the first fault"
    _, err = capfd.readouterr()
    assert err.count("\n") == 1
    assert "1 of 1 samples cannot be read" in err
    assert len(sections(tmp_path / "page")) == 1


def test_a_dataset_without_faults_shows_none(
    world: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["data", "show", str(world / "train.json"), "--model", str(tiny_model), "--out", str(tmp_path / "page")]
    assert cli.main([*argv, "--faulty"]) == 0
    assert "no faults" in capsys.readouterr().out
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "--model: "),
        (["--model", "{world}"], "config.json"),
        (["--model", "{model}", "--n", "0"], "--n 0: must be 1 or more"),
        (["--model", "{model}", "--n", "2", "--ids", "image"], "--ids: not allowed with"),
        (["--model", "{model}", "--ids", "imag"], "--ids imag: no sample of"),
        (["--model", "{model}", "contract.frame=2"], "unknown key contract.frame"),
        (["--model", "{model}", "contract.multiple=30"], "contract.multiple = 30"),
        (["--model", "{model}", "--config", "{world}/no.yaml"], "no.yaml: no such file"),
        (["--model", "{model}", "--out", "{world}"], "already holds other files"),
        (["--model", "{model}", "--out", "{world}", "--overwrite"], "already holds other files"),
        (["--model", "{model}", "--out", "{world}/mixed.json"], "is a file"),
        (["--model", "{model}", "--out", "{shown}"], "exists already; name a new folder, or replace it"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    dataset: Path,
    shown: Path,
    tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    words: str,
) -> None:
    before = sorted([*dataset.parent.rglob("*"), *shown.rglob("*")])
    places = {"world": dataset.parent, "model": tiny_model, "shown": shown}
    assert cli.main(["data", "show", str(dataset), *(part.format(**places) for part in argv)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("ser: ")
    assert err.count("\n") == 1
    assert words in err
    assert sorted([*dataset.parent.rglob("*"), *shown.rglob("*")]) == before
