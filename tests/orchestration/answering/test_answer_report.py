"""Answers as plain data and as lines, and the numbers that elections take from them."""

from __future__ import annotations

import json

import pytest
from replies import CITED, CLAIMS, answered, elected, reply

from evaluation.election.majority import Majority
from evidence.plain import dumps
from evidence.types import Verdict
from orchestration.answering.report import evidence_of, lines


def test_claims_without_a_referee_have_no_verdict():
    answer = answered(reply(CLAIMS))
    first, _, third = evidence_of(answer, answer.replies[0])["claims"]
    assert (first["phrase"], first["box"], first["time"], first["frame"]) == ("red circle", (12, 30, 33, 50), 3.0, 3)
    assert (third["time"], third["frame"]) == (5.2, 5)
    assert [first[key] for key in ("relevance", "localization", "score", "flag")] == [None] * 4


def test_a_missing_verdict_is_null_and_never_a_number():
    answer = answered(reply(CLAIMS, lambda n: Verdict(1.0, 0.5) if n == 0 else None))
    first, second, _ = evidence_of(answer, answer.replies[0])["claims"]
    assert (first["relevance"], first["localization"], first["score"], first["flag"]) == (1.0, 0.5, 0.5, None)
    assert [second[key] for key in ("relevance", "localization", "score", "flag")] == [None] * 3 + ["no verdict"]
    assert answer.replies[0].sufficiency is None


def test_whether_evidence_suffices_is_the_mean_score_of_complete_claims():
    text = "<think><obj>a</obj><box>[9,9,9,9]</box>at<t>1</t>s <obj>b</obj><box>[1,1,9,9]</box>at<t>1</t>s</think>"
    assert reply(text, lambda n: Verdict(1.0, 0.5)).sufficiency == pytest.approx(0.25)  # a degenerate box scores 0
    assert reply(text).sufficiency is None
    assert reply("<think></think>", lambda n: Verdict(1.0, 0.5)).sufficiency is None


def test_cited_frames_and_those_that_were_not_shown():
    answer = answered(reply(CITED))
    evidence = evidence_of(answer, answer.replies[0])
    assert (evidence["answer"], evidence["keyframes"], evidence["invalid_keyframes"]) == ("B", [3, 5], 1)


def test_an_election_lists_its_votes_and_candidates():
    answer = elected(Majority(candidates=3), CLAIMS, CITED, CITED)
    election = json.loads(dumps(evidence_of(answer, answer.replies[0])["election"]))
    assert (election["method"], election["winner"], election["begun"]) == ("majority", 1, 5)
    assert election["votes"][0] == {"answer": "B", "votes": 2.0, "candidates": [1, 2]}
    assert [candidate["answer"] for candidate in election["candidates"]] == ["bottom left", "B", "B"]


def test_lines_for_a_terminal():
    first, second, *_ = lines(answered(reply(CLAIMS, lambda n: Verdict(1.0, 0.5))))
    assert first == "bottom left"
    assert second == "  red circle  at 3.0 s  in [12, 30, 33, 50]  relevance 1.00, box fits 0.50, score 0.50"
    assert lines(answered(reply(CITED))) == ["B", "  key frames at 3.0, 5.0 s"]
    assert lines(answered(reply("\x1b[31m"))) == ["(the model wrote no answer)", "  no evidence cited"]
    hostile = "<think><obj>\x1b]0;x\x07\na</obj><box>[1,1,9,9]</box>at<t>1</t>s</think><answer>\x1b[2J\nb</answer>"
    printed = "\n".join(lines(answered(reply(hostile))))
    assert printed.count("\n") == 1
    assert printed.replace("\n", "").isprintable()
