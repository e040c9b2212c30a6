import sqlite3
from dataclasses import fields, replace
from pathlib import Path

import pytest
from full_disk import room

from evidence.errors import BadInput
from referee.service import cache as module
from referee.service.cache import FILE, DiskCache, VerdictCache, VerdictKey

KEY = VerdictKey(("digest", "float32"), "1", "relevance", ("text",), ("frames", 0, (0, 0, 5, 5), (56, 56), 0.25))
OTHER = {
    "referee": [("other", "float32"), ("digest", "bfloat16")],
    "wording": ["2"],
    "kind": ["localization"],
    "text": [("text", "more"), ("textmore",)],
    "pixels": [
        None,
        ("clip", 0, (0, 0, 5, 5), (56, 56), 0.25),
        ("frames", 1, (0, 0, 5, 5), (56, 56), 0.25),
        ("frames", 0, (0, 0, 5, 6), (56, 56), 0.25),
        ("frames", 0, (0, 0, 5, 5), (28, 56), 0.25),
        ("frames", 0, (0, 0, 5, 5), (56, 56), 0.5),
    ],
}
ANSWER = (0.5, 0.25, 0.25)
assert set(OTHER) == {field.name for field in fields(VerdictKey)}


@pytest.mark.parametrize("disk", [False, True])
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in OTHER.items() for value in values])
def test_any_difference_is_another_question(tmp_path: Path, name: str, value: object, disk: bool):
    cache = VerdictCache(4, DiskCache(tmp_path) if disk else None)
    cache.put(KEY, ANSWER)
    if disk:
        cache.forget()  # so that the file is read
    assert cache.get(replace(KEY, **{name: value})) is None
    assert cache.get(replace(KEY)) == ANSWER


def test_the_least_recently_used_entry_is_evicted_first():
    cache = VerdictCache(2)
    a, b, c = (replace(KEY, wording=name) for name in "abc")
    cache.put(a, (0.1,))
    cache.put(b, (0.2,))
    cache.get(a)
    cache.put(c, (0.3,))
    assert len(cache) == 2
    assert (cache.get(a), cache.get(b), cache.get(c)) == ((0.1,), None, (0.3,))


def test_the_disk_cache_is_shared_by_concurrent_and_later_runs(tmp_path: Path):
    first, second = DiskCache(tmp_path / "new/folder"), DiskCache(tmp_path / "new/folder")
    first.put(KEY, ANSWER)
    assert second.get(KEY) == ANSWER
    first.close()
    second.close()
    later = VerdictCache(1, DiskCache(tmp_path / "new/folder"))
    assert later.get(KEY) == ANSWER
    assert len(later) == 1
    assert later.disk.failures == 0


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be one" * 100, None])
def test_a_foreign_file_is_refused_in_one_line(tmp_path: Path, content: bytes | None):
    if content is None:
        with sqlite3.connect(tmp_path / FILE) as other:
            other.execute("CREATE TABLE answers (question TEXT)")
    else:
        (tmp_path / FILE).write_bytes(content)
    with pytest.raises(BadInput, match=rf"referee.cache_dir = {tmp_path}: .*{FILE} cannot be used") as refused:
        DiskCache(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_damaged_file_is_refused(tmp_path: Path):
    whole = DiskCache(tmp_path)
    for number in range(200):
        whole.put(replace(KEY, wording=str(number)), ANSWER)
    whole.close()
    file = tmp_path / FILE
    file.write_bytes(file.read_bytes()[:4096] + b"\xff" * 8192)
    with pytest.raises(BadInput, match="cannot be used"):
        DiskCache(tmp_path)


@pytest.mark.parametrize("held", ["EXCLUSIVE", "IMMEDIATE"])
def test_a_locked_file_is_refused_at_the_start_and_counted_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: str
):
    monkeypatch.setattr(module, "START_WAIT_S", 0.05)
    ours = DiskCache(tmp_path)
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute(f"BEGIN {held}")
    with pytest.raises(BadInput, match="locked"):
        DiskCache(tmp_path)
    ours.put(KEY, ANSWER)
    assert (ours.failures, ours.get(KEY)) == (1, None)
    other.execute("ROLLBACK")
    other.close()
    ours.put(KEY, ANSWER)
    assert (ours.failures, ours.get(KEY)) == (1, ANSWER)
    ours.close()  # like a disk that has failed
    assert (ours.get(KEY), ours.failures) == (None, 2)


def test_a_full_disk_costs_only_what_it_could_not_keep(tmp_path: Path):
    cache = VerdictCache(1, DiskCache(tmp_path))
    cache.put(KEY, ANSWER)
    with room(0):
        for number in range(3):
            cache.put(replace(KEY, wording=str(number)), ANSWER)
            assert cache.get(replace(KEY, wording=str(number))) == ANSWER
        assert cache.disk.failures == 3
        assert cache.get(KEY) == ANSWER, "what is on disk can be read"
    later = replace(KEY, wording="later")
    cache.put(later, ANSWER)
    assert cache.disk.failures == 3
    cache.disk.close()
    assert DiskCache(tmp_path).get(later) == ANSWER
