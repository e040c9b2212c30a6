"""The weights in assets/: small enough, loadable, with a token for every byte, and a referee that meets its quality bar
on unseen clips."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.geometry import nearest_frame
from rollout.dataset.shapes import make_shapes

ASSETS = Path(__file__).parents[1] / "assets"
NAMES = ("policy", "policy-vstar", "referee")


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Any]:
    from transformers import AutoTokenizer

    return {name: AutoTokenizer.from_pretrained(ASSETS / name) for name in NAMES}


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 new clips, from a seed that no training used."""
    data = tmp_path_factory.mktemp("heldout") / "shapes"
    make_shapes(data, train=0, val=0, test=100, seed=20_000, workers=1)
    return data / "test.json"


@pytest.fixture(scope="module")
def referee() -> Iterator[Any]:
    import torch

    from benchmarks.asset_quality import PlainReferee, load_world

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # like the benchmark; on a busy machine, more threads are many times slower
    yield PlainReferee(ASSETS / "referee", load_world().verification)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def judged(unseen: Path, referee: Any) -> dict[str, Any]:
    """The quality of the referee's verdicts on claims about the unseen clips."""
    from benchmarks.asset_quality import load_world, make_cases, quality

    cases = make_cases(unseen, clips=100, per_clip=12, seed=1, world=load_world())
    return quality(cases, referee.judge([case.look for case in cases]))


@pytest.fixture(scope="module")
def attacked(unseen: Path, referee: Any) -> dict[str, dict[str, Any]]:
    """The gain of attacks on unrelated boxes and on boxes that are too loose (referee/trust/attacks)."""
    from benchmarks.asset_quality import Look, load_world
    from referee.trust.attacks import attack_report, make_attacks
    from rollout.dataset import read_dataset
    from rollout.frames.decoding import decode

    samples = read_dataset(unseen)
    clips = [decode(sample.media_path, load_world().contract) for sample in samples]
    views = [(sample, info) for sample, (_, info) in zip(samples, clips)]
    phrases = sorted({phrase for s in samples for items in s.key_items.values() for phrase in items})

    def report(loose: bool) -> dict[str, Any]:
        attacks = make_attacks(views, 280, 0, phrases, loose)

        def scores(kind: str) -> np.ndarray:
            claims = [(number, getattr(attack, kind), attack.question) for number, attack in attacks]
            looks = [
                Look(question, claim, clips[number][0][nearest_frame(clips[number][1].times, claim.time)])
                for number, claim, question in claims
            ]
            readings = referee.judge(looks)
            return readings["relevance"] * readings["localization"]

        return attack_report([attack for _, attack in attacks], scores("claim"), scores("honest"))

    return {"unrelated": report(loose=False), "too loose": report(loose=True)}


def test_all_assets_together_are_under_12_mb():
    assert sum(file.stat().st_size for file in ASSETS.rglob("*") if file.is_file()) < 12e6


@pytest.mark.parametrize("name", NAMES)
def test_models_load_and_have_the_size_in_their_cards(name):
    from transformers import AutoModelForImageTextToText

    model, loading = AutoModelForImageTextToText.from_pretrained(ASSETS / name, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    parameters = sum(p.numel() for p in model.parameters())
    assert f"{parameters:,} parameters" in (ASSETS / name / "README.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_finite(name):
    raw = (ASSETS / name / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    assert {t["dtype"] for k, t in json.loads(raw[8 : 8 + length]).items() if k != "__metadata__"} == {"BF16"}
    exponents = np.frombuffer(raw, np.uint16, offset=8 + length) & 0x7F80
    assert not (exponents == 0x7F80).any()


@pytest.mark.parametrize("name", NAMES)
def test_every_byte_has_its_own_token(tokenizers, name):
    from tokenizers.pre_tokenizers import ByteLevel

    vocabulary = tokenizers[name].get_vocab()
    assert [byte for byte in ByteLevel.alphabet() if byte not in vocabulary] == []


@given(st.text(max_size=60))
def test_any_text_survives_the_tokenizer(tokenizers, text):
    for name in NAMES:
        tokenizer = tokenizers[name]
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_the_referee_meets_its_bar_on_hard_claims(judged):
    from benchmarks.asset_quality import QUOTAS

    assert all(share >= least for share, least in zip(judged["quotas"].values(), QUOTAS)), judged["quotas"]
    assert judged["relevance"]["auroc"] >= 0.9
    assert judged["localization"]["auroc"] >= 0.9


def test_a_correct_box_while_the_object_is_absent_scores_near_0(judged):
    assert judged["relevance"]["strata"]["absent"]["n"] >= 10
    assert judged["product"]["absent"] < 0.1


def test_a_correct_claim_scores_far_above_every_corrupted_one(judged):
    """The order that gives training its signal: exact above jittered above loose, and all above absent objects."""
    product = judged["product"]
    assert product["exact"] > product["jittered"] > product["iou .4-.7"] > product["iou .2-.4"]
    assert product["jittered"] > 0.7
    wrong = ("absent", "background", "other, asked name", "other, own name", "wrong name: colour", "no name")
    assert max(product[name] for name in wrong) < 0.1


@pytest.mark.slow
def test_no_attack_pays(attacked):
    """The bars of referee/trust/attacks: mean and 95th percentile of the gain, and the score of a box without its
    object. On loose boxes, where only the wording can gain anything, the two bars of the gain."""
    from referee.trust.attacks import MEAN_BAR, P95_BAR, broken_bars

    unrelated, loose = attacked["unrelated"], attacked["too loose"]
    assert all(report["attacks"] >= 200 for report in (unrelated, loose))
    assert unrelated["followable"] >= unrelated["attacks"] / 2
    assert broken_bars(unrelated) == [], unrelated["worst"]
    assert loose["mean"] < MEAN_BAR, loose["worst"]
    assert loose["p95"] < P95_BAR, loose["worst"]
