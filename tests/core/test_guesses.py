"""Wrong credentials by address: how many there may be, whose they are, and how little is kept."""

import pytest

from meter.core import guesses as module
from meter.core.errors import TooManyFailures
from meter.core.guesses import Guesses, networks, origin

PROXIES = networks(["10.0.0.0/8", "fd00::/8"])


def test_so_many_a_minute_and_no_more() -> None:
    """A bucket empties with each failure, says when it has room, and fills evenly."""
    guesses = Guesses(6)
    for _ in range(6):
        guesses.check("1.2.3.4", (), 0.0)
        guesses.note("1.2.3.4", (), 0.0)

    with pytest.raises(TooManyFailures) as refusal:
        guesses.check("1.2.3.4", (), 1.0)

    assert dict(refusal.value.headers)["retry-after"] == "9"
    guesses.check("1.2.3.4", (), 10.0)
    guesses.check("1.2.3.5", (), 0.0)


def test_without_a_limit_nothing_is_kept() -> None:
    """0 is any number."""
    guesses = Guesses(0)
    guesses.note("1.2.3.4", (), 0.0)
    guesses.check("1.2.3.4", (), 0.0)

    assert len(guesses) == 0


def test_the_table_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that was heard of longest ago is forgotten."""
    monkeypatch.setattr(module, "ADDRESSES_MAX", 100)
    guesses = Guesses(1)
    for number in range(1000):
        guesses.note(f"10.0.{number // 256}.{number % 256}", (), 0.0)

    assert len(guesses) == 100
    guesses.check("10.0.0.1", (), 0.0)


@pytest.mark.parametrize(
    ("host", "forwarded", "counted"),
    [
        ("1.2.3.4", ["9.9.9.9"], "1.2.3.4"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", ["9.9.9.9, 8.8.8.8"], "8.8.8.8"),
        ("10.0.0.1", ["9.9.9.9", "8.8.8.8, 10.0.0.2"], "8.8.8.8"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["9.9.9.9, nonsense"], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["8.8.8.8"], "8.8.8.8"),
        ("2001:db8:1:2:3::4", [], "2001:db8:1:2::/64"),
        ("fd00::1", ["2001:db8:1:2:ffff::"], "2001:db8:1:2::/64"),
        ("", ["8.8.8.8"], ""),
    ],
)
def test_whose_failures_they_are(host: str, forwarded: list[str], counted: str) -> None:
    """The peer's, or where that is a proxy that is believed, of the last in front of it that is none."""
    assert origin(host, forwarded, PROXIES) == counted


def test_without_proxies_nobody_is_believed() -> None:
    """What a client writes about itself is nothing."""
    assert origin("10.0.0.1", ["8.8.8.8"], ()) == "10.0.0.1"
