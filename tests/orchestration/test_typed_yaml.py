"""Text of a config stays as typed; everything else is read as YAML."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from omegaconf import OmegaConf

from evidence.errors import BadInput
from orchestration import cli
from orchestration.config import load_config, to_yaml


@dataclass
class Source:
    SHORT = "path"

    path: str
    weight: float = 1.0


@dataclass
class Everything:
    text: str = "default"
    optional: str | None = "default"
    word: Literal["yes", "no", "0123"] = "yes"
    texts: list[str] = field(default_factory=list)
    pair: tuple[str, ...] = ()
    named: dict[str, str] = field(default_factory=dict)
    source: Source = field(default_factory=lambda: Source("default"))
    spare: Source | None = None
    sources: list[Source] = field(default_factory=list)
    whole: int = 1
    number: float = 1.0
    flag: bool = False
    options: dict[str, Any] = field(default_factory=dict)


# Texts that YAML 1.1 reads as something else, if it reads them at all.
REWRITTEN = ["20261126_2118", "0123", "1:30", "yes", "off", "1e3", "0x1f", "~", "Null", "2026-11-26", ".inf", "1_000"]
UNREADABLE = ["a #b", "a: b", "{foo}", "[a", "- a", "*a", "!x", "@a", "%a", "it's", "'a' b", '"a" and "b"', " a ", "|"]

TYPED = [
    *(("text", typed, typed) for typed in [*REWRITTEN, *UNREADABLE]),
    *(("optional", typed, typed) for typed in [*REWRITTEN, *UNREADABLE]),
    ("text", "", ""),
    ("text", "'null'", "null"),
    ("text", '"0123"', "0123"),
    ("text", "'it''s'", "it's"),
    ("text", "''", ""),
    ("text", "${whole}", "1"),
    ("optional", "null", None),
    ("optional", "", None),
    ("optional", "'null'", "null"),
    ("optional", "''", ""),
    ("word", "no", "no"),
    ("word", "0123", "0123"),
    ("texts", "[yes, 0123, 1:30, 'null', a b]", ["yes", "0123", "1:30", "null", "a b"]),
    ("pair", "[on, 1_0]", ("on", "1_0")),
    ("named", "{yes: 0123, 012: no, a: 'null'}", {"yes": "0123", "012": "no", "a": "null"}),
    ("named.no", "1:30", {"no": "1:30"}),
    ("source", "0123", Source("0123")),
    ("source", "a: b", Source("a: b")),
    ("source", "{path: 1:30, weight: 2}", Source("1:30", 2.0)),
    ("source.path", "yes", Source("yes")),
    ("spare", "null", None),
    ("spare", "0123", Source("0123")),
    ("sources", "0123", [Source("0123")]),
    ("sources", "[0123, {path: yes}]", [Source("0123"), Source("yes")]),
    ("whole", "010", 10),
    ("whole", "0x1f", 31),
    ("whole", "1_000", 1000),
    ("number", "010", 10.0),
    ("number", "1e3", 1000.0),
    ("flag", "yes", True),
    ("options", "{a: yes, b: [1e3]}", {"a": True, "b": [1000.0]}),
]


@pytest.mark.parametrize(("key", "typed", "value"), TYPED)
def test_an_override_has_the_value_that_its_field_declares(key: str, typed: str, value: Any) -> None:
    config = load_config(Everything, None, [f"{key}={typed}"])
    assert getattr(config, key.partition(".")[0]) == value


@pytest.mark.parametrize(("key", "typed", "value"), TYPED)
def test_what_was_typed_survives_the_saved_config(tmp_path: Path, key: str, typed: str, value: Any) -> None:
    config = load_config(Everything, None, [f"{key}={typed}"])
    (tmp_path / "saved.yaml").write_text(to_yaml(config))
    assert load_config(Everything, tmp_path / "saved.yaml") == config


FILE = """
text: 20261126_2118  # a comment
optional: 1:30
word: no
texts:
  - yes
  - 0123
  - null and void
pair: [on, 'null']
named: {yes: 0123, no: off}
source: &source
  path: 1e3
  weight: 010
spare: {<<: *source, weight: 3}
sources: [0x1f, *source]
options: {a: yes}
"""


def test_plain_scalars_of_a_file_are_read_by_their_field(tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text(FILE)
    assert load_config(Everything, tmp_path / "file.yaml") == Everything(
        text="20261126_2118",
        optional="1:30",
        word="no",
        texts=["yes", "0123", "null and void"],
        pair=("on", "null"),
        named={"yes": "0123", "no": "off"},
        source=Source("1e3", 10.0),
        spare=Source("1e3", 3.0),
        sources=[Source("0x1f"), Source("1e3", 10.0)],
        options={"a": True},
    )


@pytest.mark.parametrize("text", ["optional: null", "optional:", "optional: "])
def test_null_and_nothing_are_none_in_optional_text_of_a_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "file.yaml").write_text(text)
    assert load_config(Everything, tmp_path / "file.yaml").optional is None


@pytest.mark.parametrize(
    "text", ["a: &a [*a]", "text: a\ntext: b", "text: [", "a: *b", "text: !!python/name:os.system x"]
)
def test_faults_of_a_file_are_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "file.yaml").write_text(text)
    with pytest.raises(BadInput, match=r"not valid YAML: [^\n]*line \d") as refused:
        load_config(Everything, tmp_path / "file.yaml")
    assert "\n" not in str(refused.value)


def test_a_name_of_a_run_keeps_its_digits_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_text(
        json.dumps({"data": {"train": "a", "heldout": "b"}, "model": {"policy": "p", "referee": "r"}})
    )
    more = ["reward=ser", "steps=010", "run_dir=20261126_2118", "data.heldout.format=null"]
    assert cli.main(["config", str(tmp_path / "run.yaml"), *more]) == 0
    printed = OmegaConf.create(capsys.readouterr().out)
    assert (printed.run_dir, printed.steps, printed.data.heldout.format) == ("20261126_2118", 10, None)
