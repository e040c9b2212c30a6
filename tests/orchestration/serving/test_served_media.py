"""Which files clients may name: nothing outside the served folder, whatever the spelling."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestration.serving.chat import Refused
from orchestration.serving.media import resolve


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A served folder with a file, beside one that is not served."""
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub/a b.mp4").write_bytes(b"video")
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (tmp_path / "rooted").mkdir()
    (tmp_path / "rooted/b.mp4").touch()
    return root.resolve()


def status(url: str, root: Path, most_gib: float = 1.0) -> int:
    with pytest.raises(Refused) as error:
        resolve(url, root, most_gib)
    return error.value.status


def test_the_ways_to_name_a_file(root):
    path = f"{root}/sub/a b.mp4"
    encoded = path.replace(" ", "%20")
    for url in (path, "sub/a b.mp4", f"file://{encoded}", f"file://localhost{encoded}", "./sub/../sub/a b.mp4"):
        assert resolve(url, root, 1.0) == path


def test_a_link_inside_the_folder_is_followed(root):
    (root / "link.mp4").symlink_to(root / "sub/a b.mp4")
    assert resolve("link.mp4", root, 1.0) == f"{root}/sub/a b.mp4"


def test_nothing_outside_is_read_or_reported(root, tmp_path):
    (root / "out.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "up").symlink_to(tmp_path)
    outside = [
        *("../secret.mp4", "sub/../../secret.mp4", "out.mp4", "up/secret.mp4", "/etc/passwd", "../rooted/b.mp4"),
        *(
            f"{root}/../secret.mp4",
            "file:///etc/passwd",
            f"file://{root}/%2e%2e/secret.mp4",
            f"{tmp_path}/rooted/b.mp4",
        ),
    ]
    for url in outside:
        assert status(url, root) == 403, url
    assert status("../missing.mp4", root) == 403  # as for a file that exists


def test_files_that_cannot_be_served(root):
    os.mkfifo(root / "pipe.mp4")
    (root / "circle.mp4").symlink_to(root / "circle.mp4")
    for url in ("missing.mp4", "sub", "", "pipe.mp4", "circle.mp4", "a\0b.mp4", "x" * 5000, "\ud800.mp4"):
        assert status(url, root) == 404, url
    assert status("sub/a b.mp4", root, most_gib=1e-9) == 413


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/a.mp4", "https://x/a.mp4", "data:video/mp4;base64,AA", "file://host/a.mp4", "http://["]
)
def test_nothing_is_fetched(root, url):
    assert status(url, root) == 400
