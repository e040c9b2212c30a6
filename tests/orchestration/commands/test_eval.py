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
        (["vstar"], ["vstar", "--results", "--model"]),
        (["v-star"], ["v-star", "no such benchmark", "vstar"]),
        (["vstar", "--results", "missing.json"], ["missing.json", "cannot be read"]),
        (["vstar", "--results", "{results}", "--mode", "lax"], ["--mode = lax", "open_o3"]),
        (["vstar", "--results", "{results}", "--boxes", "pixels"], ["--boxes = pixels", "converted"]),
        (["vstar", "--results", "{results}", "--boxes", "converted"], ["input_shape"]),
        (["vstar", "--results", "{results}", "--judge", "me"], ["--judge = me", "exact"]),
        (["vstar", "--results", "{results}", "--judge-model", "m"], ["--judge-model m", "--judge"]),
        (["vstar", "--results", "{results}", "--out", "d"], ["--out", "--judge URL"]),
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


def videomme(number: int, **changes) -> dict:
    return {
        "videoID": f"v{number // 3}",
        "duration": "short",
        "domain": "Knowledge",
        "task_type": "Counting Problem",
        "question_id": f"{number:03}-1",
        "question": "How many?",
        "options": ["A. One.", "B. Two.", "C. Three.", "D. Four."],
        "answer": "C",
    } | changes


@pytest.fixture
def files(tmp_path) -> tuple[str, ...]:
    """Data of six questions, completions of four of them, and lines that cannot be used."""
    data = write(tmp_path, [*map(videomme, range(6)), {"vid": "x"}, videomme(6, answer="Z")], "data.json")
    lines = [
        {"id": f"{n:03}-1", "text": text} for n, text in enumerate(("C", "B", "The answer is C", "<answer>C</answer>"))
    ]
    lines += [{"id": "000-1", "text": "B"}, {"id": "999-1", "text": "B"}, {"text": "B"}, {"id": "004-1", "text": 3}]
    completions = tmp_path / "completions.jsonl"
    completions.write_text("\n".join(map(json.dumps, lines)) + "\n{broken")
    return "--data", str(data), "--completions", str(completions)


def test_completions_are_scored_against_the_annotation(files, capsys):
    report = json.loads(printed(capsys, "videomme", *files, "--json"))
    assert (report["protocol"], report["n"], report["acc"]) == ("strict", 6, pytest.approx(2 / 6))
    counts = {"read": 3, "unparsable": 1, "guessed": 0, "judged": 0, "unjudged": 0, "unanswered": 2, "left_out": 0}
    assert report["counts"] == counts
    assert report["by_duration"]["short"]["ci95"]["acc"] == pytest.approx([1 / 3, 1 / 3])
    assert sum(fault["count"] for fault in report["faults"]) == 7
    lines = printed(capsys, "videomme", *files, "--protocol", "official").splitlines()
    assert lines[1].startswith("acc 0.7500 [")
    assert lines[1].endswith(" protocol=official")


def test_a_folder_of_files_is_read_as_a_whole(tmp_path, capsys):
    folder = tmp_path / "mvbench"
    folder.mkdir()
    row = {"video": "a.mp4", "question": "How many?", "candidates": ["3", "4", "2"], "answer": "4"}
    for task in ("action_count", "object_shuffle"):
        write(folder, [row], f"{task}.json")
    completions = tmp_path / "completions.jsonl"
    completions.write_text('{"id": "action_count/0", "text": "(B)"}')
    out = printed(capsys, "mvbench", "--data", folder, "--completions", completions)
    assert "\nmean_of_tasks 0.5000 [" in out


def test_tables_are_read_too(tmp_path, capsys):
    (tmp_path / "WorldSense.tsv").write_text(
        "index\tvideo\tquestion\tcandidates\tanswer\tdomain\ttask_type\tduration\taudio_class\n"
        "1\tabc\tWhat?\t\"['A. a drum', 'B. a dog', 'C. rain']\"\tB\tMusic\tAudio Change\t<1min\t\"['Music']\"\n"
    )
    completions = tmp_path / "completions.jsonl"
    completions.write_text('{"id": 1, "text": "a dog"}')
    options = ("--data", tmp_path / "WorldSense.tsv", "--completions", completions, "--json")
    assert json.loads(printed(capsys, "worldsense", *options))["acc"] == 1.0


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["videomme"], ["--data"]),
        (["videomme", "--data", "{data}"], ["--completions"]),
        (["videomme", "--data", "{data}", "--completions", "{data}"], ["no completion belongs to a question"]),
        (["videomme", "--data", "{completions}", "--completions", "{completions}"], ["holds no question of VideoMME"]),
        (["videomme", "--data", "{data}", "--completions", "{completions}", "--protocol", "x"], ["--protocol = x"]),
        (["videomme", "--results", "{data}"], ["--results", "does not apply to videomme"]),
        (["videomme", "--data", "{folder}", "--completions", "{completions}"], ["holds no .json"]),
    ],
)
def test_bad_input_about_completions(files, tmp_path, capsys, argv, words):
    (tmp_path / "empty").mkdir()
    places = {"data": files[1], "completions": files[3], "folder": tmp_path / "empty"}
    error = refused(capsys, *(text.format(**places) for text in argv))
    assert all(word in error for word in words), error


def test_compare_needs_no_samples_for_its_table(tmp_path, capsys):
    paths = [report(tmp_path, capsys, name, [result(True, "a")]) for name in ("base", "better")]
    for path in paths:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"samples": []}))
    comparison = json.loads(printed(capsys, "compare", *paths, "--json"))
    assert (len(comparison["rows"]), comparison["pairs"]) == (2, [])
    assert "not in both files" in comparison["unpaired"][0]["reason"]
