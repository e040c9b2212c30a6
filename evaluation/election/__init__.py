"""Election of one answer among several candidates for the same question (docs/election.md)."""

from __future__ import annotations

from evaluation.election.election import Method
from evaluation.election.majority import Majority
from evaluation.election.open_o3 import OpenO3
from evaluation.election.rler import Rler
from evaluation.election.self_certainty import SelfCertainty
from evaluation.election.sparse_to_dense import SparseToDense

# Name -> config section, which is the method once it has its values.
METHODS: dict[str, type[Method]] = {
    method.NAME: method for method in (Rler, Majority, OpenO3, SelfCertainty, SparseToDense)
}
