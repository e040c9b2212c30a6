"""`ser answer` and `ser serve`: bad input is one line, with exit code 2, before any engine starts."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frame_folders import write_frames
from PIL import Image
from small_clips import clip

from evidence.errors import BadInput
from orchestration import cli

ROOT = Path(__file__).parents[3]
MODEL = str(ROOT / "assets/policy")
QUESTION = "Where is the red circle at 3.0 s?"
WORLD = ["--config", str(ROOT / "configs/world/shapes.yaml")]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `ser …`, asserts that it is refused in one line before Ray starts, and returns the line."""
    import ray

    def start(*args: object, **kwargs: object) -> None:
        raise AssertionError("Ray was started despite bad input")

    monkeypatch.setattr(ray, "init", start)

    def run(*argv: object) -> str:
        capsys.readouterr()
        assert cli.main([str(part) for part in argv]) == 2
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith("ser: ")
        assert output.err.count("\n") == 1
        return output.err

    return run


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    return clip(tmp_path_factory.mktemp("clips") / "a.mp4", 40)


def answer(video: object, *more: object, question: str = QUESTION, model: object = MODEL) -> list[object]:
    return ["answer", video, question, "--model", model, *WORLD, *more]


def test_videos_that_cannot_be_read(refused, video, tmp_path):
    empty, text, cut = tmp_path / "empty.mp4", tmp_path / "text.mp4", tmp_path / "cut.mp4"
    empty.touch()
    text.write_text("not a video")
    cut.write_bytes(Path(video).read_bytes()[:300])
    picture = tmp_path / "broken.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    assert f"{tmp_path}/none.mp4: no such file" in refused(*answer(tmp_path / "none.mp4"))
    (tmp_path / "folder").mkdir()
    assert f"{tmp_path}/folder: the folder holds no image" in refused(*answer(tmp_path / "folder"))
    assert f"{empty}: the file is empty" in refused(*answer(empty))
    for path in (text, cut, picture):
        assert f"{path}: cannot be read as a video or an image (" in refused(*answer(path))
    assert f"{video}: has 0.0 GiB, more than file_gib = 1e-08; raise it" in refused(*answer(video, "file_gib=1e-8"))


def test_questions_that_are_none(refused, video):
    assert "the question is empty" in refused(*answer(video, question=" \n"))
    assert "the question has 40,000 characters; at most 32,768" in refused(*answer(video, question="x" * 40_000))
    assert "half of a character" in refused(*answer(video, question="\udcff"))


def test_models_that_are_none(refused, video, tmp_path):
    assert "no model here" in refused(*answer(video, model=tmp_path))
    assert "no model here" in refused(*answer(video, "--referee", tmp_path))


def test_elections_and_pages_that_cannot_be(refused, video, tmp_path):
    assert "no election 'best'; there are rler" in refused(*answer(video, "--elect", "best"))
    assert "which a referee judges; give one" in refused(*answer(video, "--elect", "open_o3"))
    assert "is a folder; name a file" in refused(*answer(video, "--out", tmp_path))
    assert "nothing is replaced without --out" in refused(*answer(video, "--overwrite"))
    (tmp_path / "page.html").touch()
    assert "exists already" in refused(*answer(video, "--out", tmp_path / "page.html"))
    assert "unknown key" in refused(*answer(video, "stop_lead=1"))
    assert "a prompt of 8 frames and its completion" in refused(*answer(video, "engine.max_model_len=300"))


def test_an_image_is_a_video_of_one_frame(tmp_path):
    from orchestration.answering.answerer import Asked, check_answering
    from orchestration.answering.settings import load
    from orchestration.commands.answer import require_readable

    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(tmp_path / "a.png")
    config, _ = check_answering(load(Path(WORLD[1]), [f"model={MODEL}"]))
    require_readable(str(tmp_path / "a.png"), config)
    write_frames(tmp_path / "clip", 5)
    require_readable(str(tmp_path / "clip"), config, fps=3.0)
    with pytest.raises(BadInput, match="frame rate must be given as 'fps'"):
        require_readable(str(tmp_path / "clip"), config)
    assert Asked("?", "clip", fps=3.0).sample.fps == 3.0


def test_the_rate_of_a_folder_of_frames_is_given_by_an_option(refused, tmp_path):
    folder = write_frames(tmp_path / "clip", 5)
    assert "its 'fps' is 2000, and must be from 0.001 to 1000" in refused(*answer(folder, "--fps", "2000"))


def serve(*more: object) -> list[object]:
    return ["serve", "--model", MODEL, *WORLD, *more]


def test_addresses_that_cannot_be_served(refused, tmp_path, monkeypatch):
    monkeypatch.delenv("SER_NO_TOKEN", raising=False)
    monkeypatch.setenv("SER_EMPTY_TOKEN", "")
    for host in ("0.0.0.0", "::", "example.org"):
        assert f"--host {host}: other machines reach it" in refused(*serve("--host", host))
    for name in ("SER_NO_TOKEN", "SER_EMPTY_TOKEN"):
        assert f"--token-env {name}: that variable is not set" in refused(*serve("--token-env", name))
    assert "--port 70000: must be from 0" in refused(*serve("--port", 70000))
    assert f"--root {tmp_path}/none: no such folder" in refused(*serve("--root", tmp_path / "none"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--host 127.0.0.1 --port {port}: Address already in use" in refused(*serve("--port", port))
