"""The bound of docs/staleness.md is attained, and it breaks if any one of its premises is removed."""

import itertools
from collections.abc import Callable

import pytest

from orchestration.loop.admission import Admission, StaleBatch
from orchestration.pacing import Pacing

HOPELESS = 15  # an age in versions above every bound tested here


def worst_case(admission: Admission, straggler: int, oldest_start: Callable[[Admission], int]) -> int:
    """The age at which group `straggler` is trained if it finishes only when the run cannot continue without it.

    All other groups finish at once, and every group starts on the oldest weights allowed. A straggler that never blocks
    the run finishes once it is older than HOPELESS.
    """
    began: dict[int, int] = {}

    def fill() -> None:
        while admission.free > 0:
            group = len(began)
            began[group] = oldest_start(admission)
            admission.admit(group)
            if group != straggler:
                admission.ready(group, began[group])

    while True:
        fill()
        hopeless = straggler in began and admission.version - began[straggler] > HOPELESS
        batch = None if hopeless else admission.take_batch()
        if batch is None:
            admission.ready(straggler, began[straggler])
            batch = admission.take_batch()
            assert batch is not None
        fill()
        if straggler in batch.groups:
            return batch.ages[batch.groups.index(straggler)]
        admission.step_ended()


def start_by_the_rule(admission: Admission) -> int:
    return admission.oldest_startable


def worst_of_all(make: Callable[[], Admission], oldest_start: Callable[[Admission], int] = start_by_the_rule) -> int:
    """The worst case over all stragglers of the first waves, which cover each phase of publication and the full lag."""
    pacing = make().pacing
    waves = (pacing.lag + 3) * pacing.publish_every + 1
    last = pacing.slots + waves * pacing.groups_per_step
    return max(worst_case(make(), straggler, oldest_start) for straggler in range(last))


@pytest.mark.parametrize(
    "symbols", [*itertools.product((1, 2, 5), (0, 1, 3), (1, 2), (0, 1), (0.0, 0.3, 1.0))], ids=str
)
def test_the_bound_is_attained(symbols: tuple[int, int, int, int, float]) -> None:
    assert worst_of_all(lambda: Admission(Pacing(*symbols))) == Pacing(*symbols).worst_age


@pytest.mark.parametrize(
    ("symbols", "age"),
    [
        ((4, 1, 1, 0, 0.3), 2),  # B 8, W 2: 8 // 4 + 0, the worked example
        ((4, 0, 1, 0, 0.3), 0),  # B 4, W 1: 3 // 4 + 0
        ((8, 1, 1, 0, 0.3), 2),  # B 16, W 4: 18 // 8 + 0
        ((8, 1, 2, 1, 0.3), 5),  # 18 // 8 + 2 * 2 - 1
        ((1, 3, 1, 0, 0.3), 3),  # B 4, W 1: 3 // 1 + 0
        ((10, 0, 5, 0, 1.0), 4),  # B 10, W 1: 9 // 10 + 4
    ],
)
def test_the_bound_equals_cases_worked_by_hand(symbols: tuple[int, int, int, int, float], age: int) -> None:
    assert Pacing(*symbols).worst_age == age


# Each premise is removed in turn. The assertion of the bound is switched off; the bound is that of PACING.

PACING = Pacing(groups_per_step=4, staleness=1, publish_every=2, lag=1, window_fraction=0.5)


class Unasserted(Pacing):
    worst_age = property(lambda self: 2 * HOPELESS)  # type: ignore[assignment]


def without(**changes: object) -> Pacing:
    tampered = type("Tampered", (Unasserted,), {key: property(lambda _, v=v: v) for key, v in changes.items()})
    return tampered(4, 1, 2, 1, 0.5)


class SlotFreeAtRelease(Admission):
    @property
    def free(self) -> int:
        return self.pacing.slots - len(self._waiting)


def one_publication_more(admission: Admission) -> int:
    return max(0, admission.oldest_startable - PACING.publish_every)


def published_half_as_often(admission: Admission) -> int:
    rare = 2 * PACING.publish_every
    return max(0, (admission.version // rare - PACING.lag) * rare)


def lag_from_a_late_publication(admission: Admission) -> int:
    arrived = (admission.version - 1) // PACING.publish_every
    return max(0, (arrived - PACING.lag) * PACING.publish_every)


@pytest.mark.parametrize(
    ("make", "oldest_start"),
    [
        pytest.param(lambda: Admission(without(window=10**6)), start_by_the_rule, id="no window"),
        pytest.param(lambda: Admission(without(window=PACING.window + 2)), start_by_the_rule, id="window two too wide"),
        pytest.param(lambda: Admission(without(slots=PACING.slots + 2)), start_by_the_rule, id="two slots too many"),
        pytest.param(lambda: SlotFreeAtRelease(without()), start_by_the_rule, id="slot freed before the step ended"),
        pytest.param(lambda: Admission(without()), one_publication_more, id="engine L + 1 publications behind"),
        pytest.param(lambda: Admission(without()), published_half_as_often, id="published every 2K steps"),
        pytest.param(lambda: Admission(without()), lag_from_a_late_publication, id="lag from a late publication"),
    ],
)
def test_without_any_single_premise_the_bound_breaks(
    make: Callable[[], Admission], oldest_start: Callable[[Admission], int]
) -> None:
    assert worst_of_all(lambda: Admission(PACING)) == PACING.worst_age == 5
    assert worst_of_all(make, oldest_start) > PACING.worst_age


def test_a_group_older_than_the_bound_is_never_released() -> None:
    with pytest.raises(StaleBatch, match="6 versions old; the bound is 5"):
        worst_of_all(lambda: Admission(PACING), lambda admission: max(0, admission.oldest_startable - 1))
