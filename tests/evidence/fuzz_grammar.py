"""Fuzz target: coverage-guided bytes through the parser. Any exception or a broken property of its result is a find.

    python tests/evidence/fuzz_grammar.py FOUND tests/evidence/corpus -dict=tests/evidence/grammar.dict -max_len=512

Arguments are libFuzzer's; new inputs are kept in the first folder.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["evidence"]):
    from grammar_properties import check


def one_input(data: bytes) -> None:
    check(data.decode("utf-8", "surrogateescape"))


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
