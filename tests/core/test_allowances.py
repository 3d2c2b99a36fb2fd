"""Deciding who fits, from what is held and what is free, and how much more to hold."""

from hypothesis import given
from hypothesis import strategies as st

from meter.core.allowances import PLENTY, Ask, Room, decide, extra


def test_what_fits_into_all_windows_is_admitted_in_order() -> None:
    """Each ask is decided for all of its windows together; a refused one takes nothing."""
    rooms = {1: Room(held=0, free=10), 2: Room(held=0, free=5)}

    decisions = decide([Ask({1: 6}), Ask({1: 4, 2: 6}), Ask({1: 4, 2: 5}), Ask({2: 1})], rooms)

    assert decisions == [None, 2, None, 2]
    assert (rooms[1].free, rooms[2].free) == (0, 0)
    assert (rooms[1].taken, rooms[2].taken) == (10, 5)


def test_what_is_held_is_used_first() -> None:
    """Only what is lacking is taken of what is free."""
    rooms = {1: Room(held=4, free=10)}

    assert decide([Ask({1: 3}), Ask({1: 3})], rooms) == [None, None]
    assert rooms[1] == Room(held=0, free=8, taken=2)


def test_what_was_promised_beyond_what_is_held_is_made_good_first() -> None:
    """A holder that owes takes so much more."""
    rooms = {1: Room(held=-4, free=10)}

    assert decide([Ask({1: 7}), Ask({1: 6})], rooms) == [1, None]
    assert rooms[1] == Room(held=0, free=0, taken=10)


def test_past_the_limit_nothing_is_free() -> None:
    """A window that was overspent admits only what is held."""
    rooms = {1: Room(held=3, free=-5)}

    assert decide([Ask({1: 4}), Ask({1: 3})], rooms) == [1, None]
    assert rooms[1].taken == 0


@given(
    st.lists(st.dictionaries(st.integers(1, 4), st.integers(0, 50), min_size=1)),
    st.dictionaries(
        st.integers(1, 4), st.tuples(st.integers(0, 60), st.integers(-10, 200)), min_size=4, max_size=4
    ),
)
def test_no_window_is_ever_passed(
    needs: list[dict[int, int]], given_rooms: dict[int, tuple[int, int]]
) -> None:
    """What is admitted never needs more than was held and free, and what is taken is what it lacked."""
    rooms = {window: Room(held=held, free=free) for window, (held, free) in given_rooms.items()}

    decisions = decide([Ask(need) for need in needs], rooms)

    for window, (held, free) in given_rooms.items():
        used = sum(need.get(window, 0) for need, full in zip(needs, decisions, strict=True) if full is None)
        assert used <= held + max(0, free)
        assert rooms[window].taken == max(0, used - held)
        assert rooms[window].free == free - rooms[window].taken
    for need, full in zip(needs, decisions, strict=True):
        assert full is None or full in need


def test_near_the_limit_nothing_is_held_ahead() -> None:
    """With room for fewer than `PLENTY` requests, every one is decided by itself."""
    assert extra(free=PLENTY * 10 - 1, need=10, wanted=1000) == 0
    assert extra(free=PLENTY * 10, need=10, wanted=1000) == 20
    assert extra(free=10**9, need=10, wanted=1000) == 1000
    assert extra(free=-5, need=0, wanted=1000) <= 0
