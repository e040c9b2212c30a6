"""Reservation of bytes for frames: within the budget, in FIFO order, and free of deadlocks."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.frames.budget import Budget


class RecordingBudget(Budget):
    def __init__(self, total: int):
        self.granted_leases: list[int] = []
        self.evicted_keys: list[object] = []
        super().__init__(total, self.granted_leases.append, self.evicted_keys.append)


def test_a_lease_waits_for_bytes_until_another_is_released() -> None:
    budget = RecordingBudget(100)
    budget.ask(1, 60)
    budget.ask(2, 60)
    assert budget.granted_leases == [1]
    assert (budget.live, budget.waiting) == (60, 1)
    budget.release(1)
    assert budget.granted_leases == [1, 2]


def test_settling_frees_the_unused_part_of_a_bound() -> None:
    budget = RecordingBudget(100)
    budget.ask(1, 60)
    budget.ask(2, 60)
    budget.settle(1, "a", 40)
    assert budget.granted_leases == [1, 2]
    assert budget.live == 100


def test_a_small_lease_does_not_overtake_a_large_one() -> None:
    budget = RecordingBudget(100)
    for lease, bound in ((1, 60), (2, 60), (3, 10)):
        budget.ask(lease, bound)
    assert budget.granted_leases == [1]
    assert not budget.try_now(4, 10)
    budget.release(2)  # it gave up
    assert budget.granted_leases == [1, 3]


def test_idle_entries_are_evicted_before_a_lease_waits_least_recently_used_first() -> None:
    budget = RecordingBudget(100)
    for lease, key in ((1, "a"), (2, "b"), (3, "c")):
        budget.ask(lease, 30)
        budget.settle(lease, key, 30)
        budget.release(lease)
    budget.touch("a")
    budget.ask(4, 50)
    assert budget.granted_leases[-1] == 4
    assert budget.evicted_keys == ["b", "c"]
    assert budget.live == 50


def test_an_entry_is_shared_and_counted_once() -> None:
    budget = RecordingBudget(100)
    budget.ask(1, 60)
    budget.settle(1, "a", 50)
    budget.ask(2, 60, "a")
    assert budget.granted_leases == [1, 2]
    assert budget.live == 50
    budget.settle(2, "a", 50)
    budget.release(1)
    assert budget.live == 50
    budget.release(2)
    assert budget.live == 0
    budget.ask(3, 60, "a")  # idle, but not evicted
    assert budget.evicted_keys == []
    assert budget.live == 50


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_oldest_groups_always_get_their_frames(data: st.DataObject) -> None:
    """If P bounds fit the budget, a loop that trains and releases its P oldest groups never stalls, whatever the sizes,
    sharing, order of decoding, failures and prefetches; and it never exceeds the budget."""
    P = data.draw(st.integers(1, 4))
    bound = 10
    total = P * bound + data.draw(st.integers(0, 25))
    sizes = data.draw(st.dictionaries(st.integers(0, 5), st.integers(1, bound), min_size=6, max_size=6))
    budget = RecordingBudget(total)
    open_: list[int] = []  # groups admitted and neither trained nor rejected, oldest first
    key_of: dict[int, int] = {}
    settled: set[int] = set()
    trained = 0

    def check() -> None:
        assert sum(e.bytes for e in budget._entries.values()) + sum(budget._reserved.values()) <= total
        held = [g for g in open_ if g in budget.granted_leases]
        assert held == open_[: len(held)], "a younger group was granted before an older one"

    for group in range(data.draw(st.integers(5, 25))):
        if len(open_) < 2 * P:
            open_.append(group)
            key_of[group] = data.draw(st.integers(0, 5))
            budget.ask(group, bound, data.draw(st.sampled_from([None, key_of[group]])))
        if data.draw(st.booleans()):
            key, number = data.draw(st.integers(0, 5)), 1000 + group
            if budget.try_now(number, bound):
                budget.settle(number, key, sizes[key])
                budget.release(number)
        decodable = [g for g in open_ if g in budget.granted_leases and g not in settled]
        for g in data.draw(st.permutations(decodable)):
            budget.settle(g, key_of[g], sizes[key_of[g]])
            settled.add(g)
            check()
            if data.draw(st.integers(0, 9)) == 0:
                budget.release(g)
                open_.remove(g)
        check()
        while len(open_) >= P and all(g in settled for g in open_[:P]):
            for g in open_[:P]:
                budget.release(g)
            del open_[:P]
            trained += 1
            check()
    assert all(g in budget.granted_leases for g in open_[:P])
