"""`ser data check` and `ser data convert` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from full_disk import room

from orchestration import cli
from rollout.dataset import read_dataset
from rollout.dataset.shapes import make_shapes

KEYS = [
    *("n", "format", "by_task", "by_source", "duplicates", "missing_media", "unreadable_media"),
    *("boxes_outside", "times_outside", "items_without_frame", "unscorable"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world") / "shapes"
    make_shapes(out, train=3, val=0, test=2, questions=1, workers=1)
    return out


def test_json_output_is_one_object_with_exactly_its_keys(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", str(world / "train.json"), "--json", "--media"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert (list(report), err) == (KEYS, "")
    assert (report["n"], report["format"], report["by_source"]) == (3, "open-o3", {"shapes": 3})
    assert (report["boxes_outside"], report["times_outside"], report["unreadable_media"]) == (0, 0, {})


def test_references_that_nothing_satisfies_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"id": "plain", "task": "numerical", "answer": "3.5 meters"},
        {"id": "word", "task": "numerical", "answer": "some"},
        {"id": "E", "task": "multiple choice", "answer": "E", "options": ["A. plate", "B. cup"]},
    ]
    (tmp_path / "a.mp4").write_text("")
    lines = (json.dumps(row | {"question": row["id"], "video": "a.mp4"}) for row in rows)
    (tmp_path / "d.jsonl").write_text("\n".join(lines))
    cli.main(["data", "check", str(tmp_path / "d.jsonl"), "--json"])
    assert json.loads(capsys.readouterr().out)["unscorable"] == {
        "word": "the answer 'some' is not a plain number",
        "E": "the answer 'E' names none of its options",
    }
    cli.main(["data", "check", str(tmp_path / "d.jsonl")])
    assert "word: the answer 'some'" in capsys.readouterr().out


def test_overlap_with_a_test_set_is_reported(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = str(world / "train.json"), str(world / "test.json")
    assert cli.main(["data", "check", train, "--json", "--against", test]) == 0
    assert json.loads(capsys.readouterr().out)["overlap"] == {}
    assert cli.main(["data", "check", train, "--json", "--against", str(world / "train_le2.json")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report) == [*KEYS, "overlap", "not_compared"]
    assert len(report["overlap"]) == len(read_dataset(world / "train_le2.json"))
    assert report["not_compared"] == []


def test_a_test_set_whose_media_are_missing_is_not_reported_as_disjoint(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = tmp_path / "test.json"
    test.write_text((world / "test.json").read_text())
    assert cli.main(["data", "check", str(world / "train.json"), "--json", "--against", str(test)]) == 2
    out, err = capsys.readouterr()
    missing = sorted({sample.media_path for sample in read_dataset(test)})
    assert json.loads(out)["not_compared"] == missing
    assert err.startswith(f"ser: {test}: {len(missing)} media files could not be compared, the first is {missing[0]}; ")
    assert "--against-media-root" in err


def test_the_table_has_the_same_keys(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", str(world / "train.json")]) == 0
    out = capsys.readouterr().out
    assert all(key in out for key in KEYS)
    assert "temporal-spatial free-form QA: 3" in out


def test_the_report_is_printed_before_broken_media_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.mp4").write_text("not a video")
    row = {"task": "t", "question": "What?", "answer": "It."}
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps(row | {"video": v}) for v in ("a.mp4", "b.mp4")))
    assert cli.main(["data", "check", str(tmp_path / "d.jsonl"), "--json", "--media"]) == 2
    out, err = capfd.readouterr()  # includes output of the decoder's library
    report = json.loads(out)
    assert (report["missing_media"], list(report["unreadable_media"])) == (
        [str(tmp_path / "b.mp4")],
        [str(tmp_path / "a.mp4")],
    )
    assert err.count("\n") == 1
    assert "2 of its media files cannot be read" in err


def test_a_format_and_a_media_root_can_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "json").mkdir()
    file = tmp_path / "json/d.json"
    file.write_text(json.dumps([{"path": "a.mp4", "problem": "?", "question": "q", "answer": "1-2", "duration": 9}]))
    (tmp_path / "a.mp4").write_bytes(b"anything")
    assert cli.main(["data", "check", str(file)]) == 2
    assert "fit video-r1 and tvgbench; name the format" in capsys.readouterr().err
    named = [str(file), "--format", "tvgbench", "--media-root", str(tmp_path)]
    assert cli.main(["data", "check", *named, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "tvgbench"


def test_a_format_and_a_media_root_of_the_test_set_can_be_given(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = read_dataset(world / "train.json")[0].media_path
    row = {"path": Path(clip).name, "problem": "?", "question": "q", "answer": "1-2", "duration": 9}
    test = tmp_path / "test.json"
    test.write_text(json.dumps([row]))
    check = ["data", "check", str(world / "train.json"), "--json", "--against", str(test)]
    named = ["--against-format", "tvgbench", "--against-media-root", str(Path(clip).parent)]
    assert cli.main([*check, *named]) == 0
    assert list(json.loads(capsys.readouterr().out)["overlap"].values()) == [[clip]]
    assert cli.main(check) == 2
    err = capsys.readouterr().err
    assert f"{test}: " in err
    assert "fit video-r1 and tvgbench; name the format" in err


def test_a_converted_dataset_holds_the_same_samples(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = world / "train.json", world / "ours.jsonl"
    assert cli.main(["data", "convert", str(source), str(target), "--to", "ser"]) == 0
    assert f"{target}: 3 samples, from open-o3 to ser" in capsys.readouterr().out
    assert read_dataset(target) == read_dataset(source)


def test_a_full_disk_is_no_bad_input(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(world.rglob("*"))
    with room(100):
        code = cli.main(["data", "convert", str(world / "train.json"), str(world / "full.json"), "--to", "ser"])
    assert (code, capsys.readouterr().err) == (1, f"ser: {world}/full.json: cannot be written (File too large)\n")
    assert sorted(world.rglob("*")) == before


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["check", "{world}/train.json", "--workers", "0"], "--workers 0: must be 1 or more"),
        (["check", "{world}/train.json", "--format", "x"], "format = x: must be one of ser"),
        (["check", "{world}/train.json", "--against", "{world}/tst.json"], "tst.json: no such dataset file"),
        (["check", "{world}/train.json", "--against-format", "ser"], "name it with --against TEST"),
        (["convert", "{world}/train.json", "{world}/test.json", "--to", "ser"], "test.json: exists already"),
        (["convert", "{world}/train.json", "{world}/new.json", "--to", "x"], "format = x: must be one of"),
        (["convert", "{world}/train.json", "{world}/new.json"], "--to"),
        (["convert", "{world}/train.json", "{world}/new.json", "--to", "tvgbench"], "cannot be written as tvgbench"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    world: Path, capsys: pytest.CaptureFixture[str], argv: list[str], words: str
) -> None:
    before = sorted(world.rglob("*"))
    assert cli.main(["data", *(part.format(world=world) for part in argv)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ser: ")
    assert err.count("\n") == 1
    assert words in err
    assert sorted(world.rglob("*")) == before
