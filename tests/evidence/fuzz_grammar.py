"""Coverage-guided fuzz target for the parser. An exception or a broken property of the result is a finding.

    python tests/evidence/fuzz_grammar.py NEW tests/evidence/corpus -dict=tests/evidence/grammar.dict -max_len=512

Arguments are libFuzzer's; new inputs are stored in the first folder.
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
