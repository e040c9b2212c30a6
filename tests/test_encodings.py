"""Every file is read and written as UTF-8, whatever the locale."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("evidence", "rollout", "referee", "learner", "evaluation", "orchestration", "benchmarks", "install")
OPEN_BYTES = {"av", "Image", "os", "gzip"}  # their `open` takes no encoding, or returns bytes


def text_without_encoding(tree: ast.AST) -> Iterator[int]:
    """Lines of calls that read or write text in the encoding of the locale."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        function, values = call.func, [*call.args, *(keyword.value for keyword in call.keywords)]
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        of = getattr(function.value, "id", "") if isinstance(function, ast.Attribute) else None
        modes = [v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)]
        if name == "open" and (of in OPEN_BYTES or any("b" in mode for mode in modes if len(mode) < 4)):
            continue
        reads_text = name == "open" or (name in ("read_text", "write_text") and of is not None)
        if reads_text and "encoding" not in {keyword.arg for keyword in call.keywords}:
            yield call.lineno


def test_calls_without_an_encoding_are_found() -> None:
    for text in ("open(p)", "p.open('w')", "p.read_text()", "p.write_text('b')", "(a / b).open()"):
        assert list(text_without_encoding(ast.parse(text))) == [1], text
    for text in ("open(p, 'rb')", "p.open('wb')", "av.open(p)", "p.read_text(encoding='utf-8')", "write_text(p, t)"):
        assert not list(text_without_encoding(ast.parse(text))), text


def test_text_is_read_and_written_as_utf_8() -> None:
    files = [ROOT / "setup.py", *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))]
    found = [
        f"{file.relative_to(ROOT)}:{line}"
        for file in files
        for line in text_without_encoding(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert not found
