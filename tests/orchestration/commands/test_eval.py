"""`ser eval` on recorded files: numbers, protocols, faults and comparisons."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestration import cli


def result(right: bool, vid: str, **changes) -> dict:
    return {
        "vid": vid,
        "domain": "Sports",
        "fps": 30,
        "width": 640,
        "height": 360,
        "frame_count": 900,
        "question": f"What is in {vid}?",
        "answer": "a guitar",
        "timestamps": [10, 20],
        "bboxes": [{"timestamp": 12, "frame_index": 360, "xmin": 0, "ymin": 0, "xmax": 10, "ymax": 10}],
        "answer_vqa": "a guitar" if right else "a drum",
        "answer_temporal": [10, 15],
        "answer_spatial": {"12": [0, 0, 10, 5]},
        "answer_temporal_2": [10, 20],
        "answer_spatial_2": [[0, 0, 10, 10]],
    } | changes


def write(folder: Path, rows: list, name: str = "results.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(rows))
    return path


def printed(capsys, *argv) -> str:
    assert cli.main(["eval", *map(str, argv)]) == 0
    return capsys.readouterr().out


def refused(capsys, *argv) -> str:
    assert cli.main(["eval", *map(str, argv)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.fixture
def results(tmp_path) -> Path:
    return write(tmp_path, [result(True, "a"), result(False, "b"), {"id": 3}])


def test_every_number_names_mode_boxes_and_judge(results, capsys):
    out = printed(capsys, "vstar", "--results", results, "--mode", "strict").splitlines()
    numbers = [line for line in out if "[" in line and "first:" not in line]
    assert len(numbers) > 30
    assert all(line.endswith("mode=strict boxes=as_written judge=exact") for line in numbers)
    assert next(line for line in numbers if line.startswith("acc ")).startswith("acc 0.5000 [0.0000, 1.0000]")
    assert out[-1].startswith("2 x answer_spatial_2 is not an object of seconds (a list of boxes)")
    assert "1 x left out: not a V-STaR result" in "\n".join(out)


def test_json_has_the_numbers_their_intervals_and_the_samples(results, capsys):
    report = json.loads(printed(capsys, "vstar", "--results", results, "--json"))
    assert (report["mode"], report["boxes"], report["judge"], report["n"]) == ("official", "as_written", "exact", 2)
    assert (report["acc"], report["chain1"]["m_tiou"], report["chain1"]["m_viou"]) == (0.5, 0.5, 0.5)
    assert report["ci95"]["chain2"]["m_tiou"] == [1.0, 1.0]
    assert [sample["right"] for sample in report["samples"]] == [True, False]


def test_json_lines_and_damaged_lines(tmp_path, capsys):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(result(True, "a")) + "\n{broken\n" + json.dumps(result(True, "b")) + "\n")
    report = json.loads(printed(capsys, "vstar", "--results", path, "--json"))
    assert (report["n"], report["acc"]) == (2, 1.0)
    assert report["faults"][0] == {
        "reason": "a line that is not JSON is left out",
        "count": 1,
        "first": "results.jsonl: line 2",
    }


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["vstar"], ["vstar", "--results", "runs no model"]),
        (["v-star"], ["v-star", "no such benchmark", "vstar"]),
        (["vstar", "--results", "missing.json"], ["missing.json", "cannot be read"]),
        (["vstar", "--results", "{results}", "--mode", "lax"], ["--mode = lax", "open_o3"]),
        (["vstar", "--results", "{results}", "--boxes", "pixels"], ["--boxes = pixels", "converted"]),
        (["vstar", "--results", "{results}", "--boxes", "converted"], ["input_shape"]),
        (["vstar", "--results", "{results}", "--judge", "me"], ["--judge = me", "exact"]),
        (["vstar", "--results", "{results}", "--protocol", "strict"], ["--protocol", "does not apply to vstar"]),
        (["vstar", "{results}"], ["unexpected"]),
        (["compare", "{results}"], ["two or more"]),
        (["compare", "{results}", "{results}"], ["twice"]),
        (["compare", "{results}", "{other}"], ["is no report"]),
        (["compare", "a", "b", "--mode", "strict"], ["--mode", "does not apply to compare"]),
    ],
)
def test_bad_input_is_one_line(results, tmp_path, capsys, argv, words):
    other = write(tmp_path, [], "other.json")
    error = refused(capsys, *(text.format(results=results, other=other) for text in argv))
    assert all(word in error for word in words), error


@pytest.mark.parametrize("content", ["", "[]", "[1, 2]", "{", "not json", '[{"question_id": "1", "options": []}]'])
def test_a_file_of_which_nothing_can_be_scored_is_bad_input(tmp_path, capsys, content):
    path = tmp_path / "results.json"
    path.write_text(content)
    assert str(path) in refused(capsys, "vstar", "--results", path)


def report(tmp_path, capsys, name, rows, *options) -> Path:
    path = tmp_path / f"{name}.json"
    source = write(tmp_path, rows, f"{name}-results.json")
    path.write_text(printed(capsys, "vstar", "--results", source, "--json", *options))
    return path


def test_compare_pairs_reports_sample_by_sample(tmp_path, capsys):
    videos = "abcdefgh"
    base = report(tmp_path, capsys, "base", [result(False, vid) for vid in videos])
    better = report(tmp_path, capsys, "better", [result(True, vid) for vid in videos])
    strict = report(tmp_path, capsys, "strict", [result(True, vid) for vid in videos], "--mode", "strict")
    comparison = json.loads(printed(capsys, "compare", base, better, strict, "--json"))
    assert [row["report"] for row in comparison["rows"]] == ["base", "better", "strict"]
    assert {row["metric"] for row in comparison["rows"]} == {"mlgm"}
    acc = next(pair for pair in comparison["pairs"] if pair["metric"] == "acc")
    assert (acc["first"], acc["second"], acc["difference"], acc["ci95"], acc["n"]) == ("base", "better", 1, [1, 1], 8)
    assert [pair["second"] for pair in comparison["unpaired"]] == ["strict", "strict"]
    out = printed(capsys, "compare", base, better)
    assert "better minus base: vstar acc +1.0000 [1.0000, 1.0000] n=8 mode=official" in out


def test_compare_needs_no_samples_for_its_table(tmp_path, capsys):
    paths = [report(tmp_path, capsys, name, [result(True, "a")]) for name in ("base", "better")]
    for path in paths:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"samples": []}))
    comparison = json.loads(printed(capsys, "compare", *paths, "--json"))
    assert (len(comparison["rows"]), comparison["pairs"]) == (2, [])
    assert "not in both files" in comparison["unpaired"][0]["reason"]
