"""Names of teams and keys: 1 to 128 printable characters, without blanks around them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.core.teams import NAME_LENGTH_MAX, check_name


@pytest.mark.parametrize(
    ("name", "checked"),
    [
        ("search", "search"),
        ("  search ", "search"),
        ("\tsearch\n", "search"),
        ("two words", "two words"),
        ("Größe ☃ 検索", "Größe ☃ 検索"),
        ("=1+1", "=1+1"),
        ("n" * NAME_LENGTH_MAX, "n" * NAME_LENGTH_MAX),
        (" " + "n" * NAME_LENGTH_MAX + " ", "n" * NAME_LENGTH_MAX),
    ],
)
def test_a_name_loses_the_blanks_around_it(name: str, checked: str) -> None:
    """A good name is kept as it is, but for the blanks around it."""
    assert check_name(name) == checked


@pytest.mark.parametrize(
    "name",
    [
        "",
        "   ",
        "\u3000",
        "n" * (NAME_LENGTH_MAX + 1),
        "a\nb",
        "a\tb",
        "a\0b",
        "a\x1b[31mb",
        "a\u200bb",
        "a\u202eb",
        "a\u00a0b",
        "a\ud800b",
    ],
)
def test_a_name_that_cannot_be_shown_is_refused(name: str) -> None:
    """Nothing, too much, control characters and what hides or turns text are no name."""
    with pytest.raises(ValueError, match="1 to 128 printable characters"):
        check_name(name)


@given(st.text(max_size=200))
def test_a_checked_name_stays_as_it_is(name: str) -> None:
    """Whatever passes, passes again unchanged and can be stored."""
    try:
        checked = check_name(name)
    except ValueError:
        return
    assert check_name(checked) == checked
    assert 1 <= len(checked.encode().decode()) <= NAME_LENGTH_MAX
