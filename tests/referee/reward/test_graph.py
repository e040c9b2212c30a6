"""The reward graph: sums, gates, task filters, schedules, left-out terms, and recipes refused when they are loaded."""

from __future__ import annotations

import math
import sys
from types import ModuleType

import numpy as np
import pytest

from evidence.errors import BadInput, RunFailed
from evidence.grammar import parse
from evidence.types import FrameInfo, Sample, Verdict
from referee.reward.graph import RewardGraph
from referee.reward.settings import RewardConfig, TermConfig
from referee.terms.view import GroupView, needs

INFO = FrameInfo("k", tuple(map(float, range(8))), (56, 56), (112, 112), 7.25)
CLAIM = "<obj>red circle</obj><box>[10,10,30,30]</box>at<t>3.0</t>s"


def length(view: GroupView, *, unit: float = 1.0, letters: str = "") -> list[float]:
    return [unit * (len(text) if not letters else sum(c in letters for c in text)) for text in view.texts]


def double(view: GroupView, *, of: str) -> np.ndarray:
    return 2 * view.terms[of]


@needs("contrast")
def lead(view: GroupView, *, of: str) -> list[float]:
    return [float(view.terms[of].mean() - view.contrast.terms[of].mean())] * len(view.texts)


def unknown(view: GroupView) -> list[float]:
    return [math.nan, *([1.0] * (len(view.texts) - 1))]


def bad(view: GroupView) -> list[float]:
    return [1 / 0 for _ in view.texts]


def short(view: GroupView) -> list[float]:
    return [1.0]


def nameless(view: Nothing) -> list[float]:  # noqa: F821
    return [1.0]


@pytest.fixture(autouse=True)
def own_terms(monkeypatch):
    module = ModuleType("own_terms")
    for term in (length, double, lead, unknown, short, bad, nameless):
        setattr(module, term.__name__, term)
    module.wrong = lambda view, unit: [unit]
    monkeypatch.setitem(sys.modules, "own_terms", module)


def graph(**terms) -> RewardGraph:
    return RewardGraph(RewardConfig(terms={name: TermConfig(**fields) for name, fields in terms.items()}))


def view(*texts: str, task: str = "general", **known) -> GroupView:
    sample = Sample("a", "test", task, "Where?", "top left", video_path="a.mp4")
    return GroupView(sample, texts, tuple(map(parse, texts)), INFO, **known)


def test_the_reward_is_the_weighted_sum_of_the_terms():
    scored = graph(
        long={"use": "own_terms:length", "weight": 0.5},
        a={"use": "own_terms:length", "weight": -2.0, "options": {"letters": "a"}},
    ).score(view("aab", "b"))
    assert scored.rewards.dtype == np.float32
    assert scored.rewards.tolist() == [0.5 * 3 - 2 * 2, 0.5]
    assert {name: values.tolist() for name, values in scored.terms.items()} == {"long": [3, 1], "a": [2, 0]}


def test_a_gate_pays_from_its_threshold_on_and_raw_values_are_kept():
    scored = graph(
        long={"use": "own_terms:length", "gate": {"a": 1.0}},
        a={"use": "own_terms:length", "weight": 0.0, "options": {"letters": "a"}},
    ).score(view("ab", "bbb", "aabb"))
    assert scored.rewards.tolist() == [2, 0, 4]
    assert scored.terms["long"].tolist() == [2, 3, 4]
    assert scored.paid["long"].tolist() == [2, 0, 4]


def test_a_term_is_0_on_other_tasks():
    recipe = graph(long={"use": "own_terms:length", "tasks": ["temporal QA"]}, other={"use": "own_terms:length"})
    assert recipe.score(view("ab", "b")).rewards.tolist() == [2, 1]
    assert recipe.score(view("ab", "b", task="temporal QA")).rewards.tolist() == [4, 2]


def test_the_needs_of_a_task_exclude_terms_for_other_tasks():
    recipe = graph(
        length={"use": "own_terms:length"},
        ser={"tasks": ["temporal QA"]},
        text_judge={"tasks": ["free-form"]},
    )
    assert recipe.needs == {"frames", "verdicts", "judgements"}
    assert recipe.needs_for("temporal QA") == {"frames", "verdicts"}
    assert recipe.needs_for("free-form") == {"judgements"}
    assert recipe.needs_for("general") == frozenset()
    claimed = f"<think>{CLAIM}</think><answer>x</answer>"
    assert recipe.score(view(claimed, task="general")).rewards.tolist() == [len(claimed)]  # no verdict, not left out


@pytest.mark.parametrize(("progress", "factor"), [(0.0, 1.0), (0.2, 1.0), (0.3, 0.75), (0.4, 0.5), (0.7, 0.5)])
def test_a_schedule_is_linear_between_its_points_and_constant_beyond(progress: float, factor: float):
    recipe = graph(long={"use": "own_terms:length", "weight": 2.0, "schedule": [[0.2, 1.0], [0.4, 0.5]]})
    assert recipe.score(view("ab", "b", progress=progress)).rewards.tolist() == pytest.approx([4 * factor, 2 * factor])


def test_a_term_may_read_the_terms_before_it():
    scored = graph(long={"use": "own_terms:length"}, twice={"use": "own_terms:double", "options": {"of": "long"}})
    assert scored.score(view("ab", "b")).rewards.tolist() == [6, 3]


def test_contrast_terms_compare_with_the_completions_on_shuffled_frames():
    terms = {
        "long": {"use": "own_terms:length"},
        "unread": {"use": "ser", "weight": 0.0},
        "lead": {"use": "own_terms:lead", "options": {"of": "long"}},
    }
    drawn = view("abc", "b", contrast=view("a"), verdicts=([], []))
    assert graph(**terms).needs == {"contrast", "frames", "verdicts"}
    assert graph(**terms).score(drawn).terms["lead"].tolist() == [1, 1]
    terms["lead"]["options"] = {"of": "unread"}
    with pytest.raises(BadInput, match=r"reward\.terms\.lead\.options\.of = unread: .* that needs no referee: long"):
        graph(**terms)


def test_a_missing_verdict_leaves_ser_out_for_the_whole_group():
    terms = {"long": {"use": "own_terms:length"}, "ser": {"weight": 2.0, "options": {"m_min": 1}}}
    texts = [f"<think>{CLAIM}</think><answer>x</answer>"] * 2
    scored = graph(**terms).score(view(*texts, verdicts=([Verdict(1, 0.5)], [Verdict(1, 1)])))
    assert (scored.rewards - scored.terms["long"]).tolist() == [1, 2]
    assert [claims[0].score for claims in scored.evidence] == [0.5, 1]
    assert scored.left_out == ()
    missing = graph(**terms).score(view(*texts, verdicts=([Verdict(1, 0.5)], [None])))
    assert missing.rewards.tolist() == missing.terms["long"].tolist()
    assert missing.left_out == ("ser",)
    assert "ser" not in missing.paid
    assert missing.counts["left out: ser"] == missing.counts["missing"] == 1


def test_terms_gated_on_a_left_out_term_are_left_out_too():
    scored = graph(
        unsure={"use": "own_terms:unknown"},
        long={"use": "own_terms:length", "gate": {"unsure": 0.5}},
        free={"use": "own_terms:length"},
    ).score(view("ab", "b"))
    assert scored.left_out == ("unsure", "long")
    assert scored.rewards.tolist() == [2, 1]


def test_an_exception_in_a_users_term_ends_the_run_with_one_line_and_its_place():
    with pytest.raises(RunFailed, match=r"reward\.terms\.bad: ZeroDivisionError: .*test_graph\.py, line \d+\)$"):
        graph(bad={"use": "own_terms:bad"}).score(view("a", "b"))


def test_a_term_that_returns_too_few_numbers_ends_the_run():
    with pytest.raises(RunFailed, match=r"reward\.terms\.short: must return 2 finite numbers"):
        graph(short={"use": "own_terms:short"}).score(view("a", "b"))


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({}, r"^terms = \{\}: must be at least one term"),
        ({"sr": {}}, r"reward\.terms\.sr: no term is called sr; the nearest is ser"),
        ({"a": {"use": "nowhere:term"}}, r"reward\.terms\.a\.use = nowhere:term: nowhere cannot be imported"),
        ({"a": {"use": "own_terms:gone"}}, "own_terms has no function gone"),
        ({"a": {"use": "own_terms:wrong"}}, r"must be written as def <lambda>\(view, \*, option=default, …\)"),
        (
            {"a": {"use": "own_terms:length", "options": {"units": 2}}},
            r"reward\.terms\.a\.options\.units: own_terms:length has no such option; the nearest option is unit",
        ),
        (
            {"a": {"use": "own_terms:length", "options": {"unit": "far"}}},
            r"reward\.terms\.a\.options\.unit = 'far': must be of type float",
        ),
        ({"ser": {"options": {"sigma": 0}}}, r"reward\.terms\.ser\.options\.sigma = 0\.0: must be above 0"),
        ({"ser": {}, "more": {"use": "ser"}}, r"reward\.terms\.more: must be the only ser term; remove one of them"),
        ({"ser": {"gate": {"acc": 1.0}}}, r"^terms\.ser\.gate\.acc: must be another term"),
        ({"ser": {"weight": math.inf}}, r"^terms\.ser\.weight = inf"),
        (
            {"a": {"use": "accuracy"}, "b": {"use": "rouge", "gate": {"a": math.nan}}},
            r"gate\.a = nan: must be finite",
        ),
        (
            {"a": {"use": "accuracy", "options": {"free_form": "x"}}},
            "free_form = 'x': must be one of rouge, exact",
        ),
        (
            {"think_transparency": {"options": {"low": 400}}},
            r"reward\.terms\.think_transparency\.options: .* must satisfy 0 <= low < high",
        ),
        ({"thk_spatial": {"options": {"tau": -3}}}, r"tau = -3\.0: must be 0 s or more"),
        (
            {"a": {"use": "accuracy"}, "b": {"use": "length_window", "options": {"of": "a", "low": 513}}},
            r"reward\.terms\.b\.options: length_window: low = 513, high = 512: must satisfy 0 <= low <= high",
        ),
        ({"a": {"use": "builtins:max"}}, r"a\.use = builtins:max: its signature cannot be read"),
        ({"a": {"use": "own_terms:nameless"}}, r"own_terms:nameless: its signature cannot be read: name 'Nothing'"),
        ({"ser": {"schedule": [[0, math.nan]]}}, r"each point must be \[progress from 0 to 1, finite factor\]"),
        ({"ser": {"schedule": [[0.5, 1], [0.5, 2]]}}, "progress must increase"),
        ({"ser": {"schedule": [[2, 1]]}}, r"each point must be \[progress from 0 to 1, finite factor\]"),
        (
            {"b": {"use": "own_terms:double", "options": {"of": "a"}}, "a": {"use": "own_terms:length"}},
            r"reward\.terms\.b\.options\.of = a: must be a term listed before this one: there is none",
        ),
    ],
)
def test_invalid_recipes_are_refused_when_they_are_loaded(terms, message):
    with pytest.raises(BadInput, match=message):
        graph(**terms)
