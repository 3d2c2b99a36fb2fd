"""Models without a price are refused where that is the policy, and named in the log once each."""

import logging
from datetime import UTC, datetime

import pytest

from meter.app.unpriced import NAMES_TOLD_MAX, Unpriced, UnpricedGate
from meter.core.attempts import Attempt
from meter.core.errors import ModelNotPriced
from meter.core.events import Outcome, UsageEvent, UsageSource
from meter.core.keys import Grant
from meter.core.prices import BEGINNING, Price, PriceBook, Rates
from meter.core.request import read_request
from meter.proxy.admission import Candidate

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
BOOK = PriceBook(
    [
        Price(
            id=1,
            catalog="",
            upstream="near",
            model="priced",
            effective_from=BEGINNING,
            rates=Rates(prompt=0),
            source="set",
            created_at=NOW,
        )
    ]
)


def ask(model: str, *, upstream: str = "near", key: str | None, settings: str = "allow") -> None:
    """Ask for admission."""
    attempt = Attempt(
        event_id="e",
        started_at=NOW,
        team_id="t",
        key_id="k",
        route="chat.completions",
        upstream=upstream,
        model=model,
        stream=False,
        prompt_estimate=1,
    )
    grant = Grant("k", "key", "t", "team", unpriced=key)
    facts = read_request(b'{"model": "m", "messages": []}')
    UnpricedGate(lambda: BOOK, settings).step(Candidate(attempt, grant, facts))


@pytest.mark.parametrize(
    ("model", "upstream", "key", "settings", "passes"),
    [
        ("unknown", "near", None, "allow", True),
        ("unknown", "near", None, "block", False),
        ("unknown", "near", "allow", "block", True),
        ("unknown", "near", "block", "allow", False),
        ("priced", "near", "block", "block", True),
        ("priced", "far", "block", "block", False),
    ],
)
def test_the_policy(model: str, upstream: str, key: str | None, settings: str, passes: bool) -> None:
    """The key's policy comes before the settings', and the price is that of the chosen upstream."""
    if passes:
        ask(model, upstream=upstream, key=key, settings=settings)
    else:
        with pytest.raises(ModelNotPriced, match=f"'{model}' has no price"):
            ask(model, upstream=upstream, key=key, settings=settings)


def event(model: str, **fields: object) -> UsageEvent:
    """Make an event without a cost."""
    values: dict[str, object] = {
        "event_id": "e",
        "started_at": NOW,
        "team_id": "t",
        "key_id": "k",
        "route": "chat.completions",
        "upstream": "near",
        "model_requested": model,
        "stream": False,
        "outcome": Outcome.OK,
        "usage_source": UsageSource.REPORTED,
    }
    return UsageEvent(**values | fields)  # type: ignore[arg-type]  # a table of fields


def test_each_model_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """A model is named when it first goes without a price; one that used nothing is not."""
    unpriced = Unpriced()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            unpriced.tell(event("a"))
        unpriced.tell(event("b", price_id=7))
        unpriced.tell(event("c", usage_source=UsageSource.NONE))

    first, second = caplog.messages
    assert "'a'" in first
    assert "price 7 of 'b'" in second


def test_names_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Clients that make up names do not fill the log, nor the memory."""
    unpriced = Unpriced()
    with caplog.at_level(logging.WARNING):
        for number in range(NAMES_TOLD_MAX + 50):
            unpriced.tell(event(f"m{number}"))

    assert len(caplog.messages) == NAMES_TOLD_MAX + 1
    assert "meter_unpriced_total" in caplog.messages[-1]
