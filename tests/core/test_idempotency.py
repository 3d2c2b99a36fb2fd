"""Asking twice with one key."""

import pytest

from meter.core.errors import IdempotencyConflict
from meter.core.idempotency import Past, answered, errand


def test_an_errand_is_of_one_asker_route_and_key() -> None:
    """Any of them makes it another errand; the body makes it another request of the same."""
    first = errand("k", "asker", "POST /a", b"{}")
    others = [errand("l", "asker", "POST /a", b"{}"), errand("k", "b", "POST /a", b"{}")]

    assert errand("k", "asker", "POST /a", b"{}") == first
    assert first.digest not in {other.digest for other in others}
    assert errand("k", "asker", "POST /b", b"{}").digest != first.digest
    assert errand("k", "asker", "POST /a", b"[]").digest == first.digest
    assert errand("k", "asker", "POST /a", b"[]").request_digest != first.request_digest


@pytest.mark.parametrize("key", ["", " ", "a b", "é", "a\n", "x" * 256, "\x00"])
def test_what_is_no_key_is_refused(key: str) -> None:
    """A key is 1 to 255 visible characters."""
    with pytest.raises(ValueError, match="Idempotency-Key"):
        errand(key, "asker", "POST /a", b"")


def test_an_answer_is_given_again() -> None:
    """What is known of the same request is its answer."""
    assert answered(Past(same_request=True, status=201, response="{}")) == (201, "{}")


@pytest.mark.parametrize(
    ("past", "told"),
    [(Past(False, 201, "{}"), "another request"), (Past(True, None, None), "under way")],
)
def test_what_cannot_be_answered_again_is_a_conflict(past: Past, told: str) -> None:
    """Another request, or one without an end, is refused with what to do."""
    with pytest.raises(IdempotencyConflict, match=told):
        answered(past)
