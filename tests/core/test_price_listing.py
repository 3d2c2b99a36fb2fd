"""What is shown of the book: the operator's own prices, what counts for a name, what a pattern matches."""

from datetime import UTC, datetime

import pytest

from meter.core.price_listing import Asked, listing
from meter.core.prices import BEGINNING, Hours, Price, Rates

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
LATER = datetime(2026, 12, 1, tzinfo=UTC)


def make(number: int, catalog: str, model: str, start: datetime = BEGINNING, **fields: object) -> Price:
    """Make a version."""
    values = {
        "id": number,
        "catalog": catalog,
        "model": model,
        "effective_from": start,
        "rates": Rates(prompt=number),
        "source": "s",
        "created_at": NOW,
    }
    return Price(**values | fields)  # type: ignore[arg-type]


BOOK = [
    make(1, "anthropic", "claude-sonnet-4"),
    make(2, "openrouter", "anthropic/claude-sonnet-4"),
    make(3, "openai", "gpt-4.1"),
    make(4, "openai", "gpt-4.1", service_tier="priority"),
    make(5, "", "anthropic/claude-sonnet-4", LATER),
    make(6, "", "gpt-4.1", upstream="gateway"),
    make(7, "", "mine", datetime(2026, 1, 1, tzinfo=UTC)),
    make(8, "", "mine"),
    make(9, "", "mine", hours=Hours(start_minute=0, end_minute=60), upstream="odd"),
]


@pytest.mark.parametrize(
    ("model", "at", "every", "numbers", "to_come"),
    [
        (None, NOW, False, [6, 7, 9], 1),
        (None, LATER, False, [5, 6, 7, 9], 0),
        (None, NOW, True, [5, 6, 8, 7, 9], 0),
        ("anthropic/claude-sonnet-4", NOW, False, [1, 2], 1),
        ("anthropic/claude-sonnet-4", LATER, False, [5, 1, 2], 0),
        ("anthropic/claude-sonnet-4-20250514", LATER, False, [5, 1, 2], 0),
        ("gpt-4.1", NOW, False, [6, 3, 4], 0),
        ("openai/gpt-4.1", NOW, False, [3, 4], 0),
        ("anthropic/*", NOW, False, [2, 1], 1),
        ("*claude*", LATER, False, [5, 2, 1], 0),
        ("gpt-?.1", NOW, False, [6, 3, 4], 0),
        ("GPT-4.1", NOW, False, [], 0),
        ("mine", BEGINNING, False, [9, 8], 1),
        ("nothing", NOW, False, [], 0),
        ("nothing*", NOW, True, [], 0),
    ],
)
def test_what_is_shown(
    model: str | None, at: datetime, every: bool, numbers: list[int], to_come: int
) -> None:
    """Versions come in the order in which they count for a name, and sorted by name for a pattern."""
    found = listing(BOOK, Asked(model, at, every), {"router": "openrouter"})

    assert [price.id for price in found.prices] == numbers
    assert found.to_come == to_come
    assert found.listed == 3


def test_an_upstream_that_is_a_provider() -> None:
    """The list of a provider that is asked directly is shown too, since its prices count there."""
    book = [make(1, "groq", "llama")]

    assert listing(book, Asked("llama", NOW), {}).prices == ()
    assert listing(book, Asked("llama", NOW), {"fast": "groq"}).prices == (book[0],)
