"""Sessions: what a cookie says, and that nobody else can have written it."""

from datetime import UTC, datetime, timedelta

import pytest

from meter.core.sessions import COOKIE_LENGTH_MAX, form_token, is_form_token, seal, session, unseal

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
KEY, OTHER = b"k" * 32, b"o" * 32
MADE = session("an-id", b"\x00\xffdigest", NOW, timedelta(hours=12))


def test_a_cookie_is_read_as_it_was_written() -> None:
    """Whatever bytes the digest has, the session comes back."""
    assert unseal(seal(MADE, KEY), KEY) == MADE


def test_a_session_ends_at_its_end() -> None:
    """At the instant itself it is over."""
    ends = NOW + timedelta(hours=12)

    assert MADE.lasts_at(ends - timedelta(seconds=1))
    assert not MADE.lasts_at(ends)


def test_any_changed_character_makes_it_nobodys() -> None:
    """There is no character of a cookie that does not matter, but for the unused bits at base64's ends."""
    cookie = seal(MADE, KEY)

    for at, character in enumerate(cookie):
        changed = f"{cookie[:at]}{'A' if character != 'A' else 'B'}{cookie[at + 1 :]}"
        assert unseal(changed, KEY) in {None, MADE}
        if at not in {cookie.index(".") - 1, len(cookie) - 1}:
            assert unseal(changed, KEY) is None, at


@pytest.mark.parametrize(
    "cookie", ["", ".", "a.b", "é.é", "x", "=.=", "." * 5, "a" * (COOKIE_LENGTH_MAX + 1), seal(MADE, OTHER)]
)
def test_what_was_not_written_with_the_key_is_nobodys(cookie: str) -> None:
    """Neither rubbish nor another key's cookie is one."""
    assert unseal(cookie, KEY) is None


def test_a_form_is_good_in_its_own_session_alone() -> None:
    """Neither another session's form nor another key's is taken, nor one with letters that no form has."""
    token = form_token("an-id", KEY)

    assert is_form_token(token, "an-id", KEY)
    assert not is_form_token(token, "another", KEY)
    assert not is_form_token(token, "an-id", OTHER)
    assert not is_form_token("é", "an-id", KEY)
    assert not is_form_token("", "an-id", KEY)
