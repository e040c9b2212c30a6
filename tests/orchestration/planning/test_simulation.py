"""The simulated loop against steps that can be computed by hand."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from learner.settings import PackingConfig
from orchestration.pacing import Pacing
from orchestration.planning.simulation import Outcome, Parts, Seconds, simulate
from orchestration.planning.workload import Workload, lognormal

LENGTH, COMPLETIONS, PROMPT = 100, 4, 50
SECONDS = Seconds(
    frames=1.0,
    prefill=0.5,
    decode=0.01,
    decode_sequence=0.001,
    referee=2.0,
    step=0.5,
    token=0.01,
    publish=3.0,
    load=0.2,
)
PARTS = Parts(ranks=2, engines=1, referees=1, sequences=64)
PREFIX = PackingConfig()


def workload(length: int = LENGTH, completions: int = COMPLETIONS) -> Workload:
    return Workload(PROMPT, 1, 1, completions, lambda rng: length, length, length)


def run(pacing: Pacing, parts: Parts = PARTS, seconds: Seconds = SECONDS, steps: int = 40) -> Outcome:
    return simulate(pacing, parts, seconds, workload(), PREFIX, steps)


TRAINING = SECONDS.step + SECONDS.token * (PROMPT + COMPLETIONS * LENGTH)
ROLLOUT = SECONDS.prefill + LENGTH * (SECONDS.decode + COMPLETIONS * SECONDS.decode_sequence)


def test_a_synchronous_step_is_the_sum_of_its_stages() -> None:
    outcome = run(Pacing(1, 0))
    # Frames are decoded ahead.
    assert outcome.step_s == pytest.approx(ROLLOUT + SECONDS.referee + TRAINING + SECONDS.publish + SECONDS.load)
    assert outcome.staleness_mean == 0
    assert outcome.idle["learner: referee"] * outcome.step_s == pytest.approx(SECONDS.referee)
    assert outcome.idle["learner: completions"] * outcome.step_s == pytest.approx(ROLLOUT)
    assert outcome.idle["learner: engine"] * outcome.step_s == pytest.approx(SECONDS.load)


def test_many_slots_hide_all_but_the_slowest_stage() -> None:
    assert run(Pacing(1, 4)).step_s == pytest.approx(TRAINING + SECONDS.publish)
    slow = replace(SECONDS, referee=20.0)
    outcome = run(Pacing(1, 4), seconds=slow)
    assert outcome.step_s == pytest.approx(slow.referee)
    assert max(outcome.idle, key=lambda name: outcome.idle[name] * name.startswith("learner")) == "learner: referee"
    assert run(Pacing(1, 4), replace(PARTS, referees=2), slow).step_s == pytest.approx(10.0)


def test_prompts_are_trained_once_or_for_each_completion() -> None:
    repeated = simulate(Pacing(1, 4), PARTS, SECONDS, workload(), PackingConfig(mode="none"), 40)
    more = SECONDS.token * PROMPT * (COMPLETIONS - 1)
    assert repeated.step_s == pytest.approx(TRAINING + SECONDS.publish + more)


def test_publications_are_collected_every_so_many_steps() -> None:
    outcome = run(Pacing(1, 4, publish_every=4), steps=400)
    assert outcome.step_s == pytest.approx(TRAINING + SECONDS.publish / 4, rel=0.01)


def test_one_core_does_the_work_of_all_processes() -> None:
    work = SECONDS.frames + ROLLOUT + SECONDS.referee + 2 * (TRAINING + SECONDS.publish) + SECONDS.load
    # With several groups at once an engine shares its decode steps, so a group at a time.
    outcome = run(Pacing(1, 0), replace(PARTS, cores=1))
    assert outcome.step_s == pytest.approx(work, rel=0.03)


def test_sequences_beyond_an_engines_limit_wait() -> None:
    two = run(Pacing(1, 0), replace(PARTS, sequences=2))
    rounds = 2 * LENGTH * (SECONDS.decode + 2 * SECONDS.decode_sequence)
    waited = two.step_s - run(Pacing(1, 0)).step_s
    assert waited == pytest.approx(rounds + SECONDS.prefill - ROLLOUT)


@pytest.mark.parametrize("pacing", [Pacing(4, 1), Pacing(2, 3), Pacing(3, 2, publish_every=2, lag=1)])
def test_staleness_stays_within_its_bound_and_the_result_is_repeatable(pacing: Pacing) -> None:
    varied = Workload(PROMPT, 1, 1, COMPLETIONS, lognormal(100, 0.8, 1000), 100, 1000)
    one, two = (simulate(pacing, PARTS, SECONDS, varied, PREFIX, 100) for _ in range(2))
    assert one == two
    assert 0 < one.staleness_mean <= pacing.worst_age


def test_lengths_have_their_mean_and_limit() -> None:
    draw, rng = lognormal(300, 0.5, 5000), Random(0)
    lengths = [draw(rng) for _ in range(5000)]
    assert sum(lengths) / len(lengths) == pytest.approx(300, rel=0.03)
    assert max(lognormal(300, 0.5, 310)(rng) for _ in range(100)) == 310
