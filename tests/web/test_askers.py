"""From a token to its asker: remembered for seconds, bounded, and honest about a database that is away."""

import asyncio
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from meter.core.access import OWNER, SCRAPER, Role
from meter.core.clock import Clock
from meter.core.errors import InvalidAdminToken, MeteringUnavailable
from meter.core.tokens import Token, digest, mint
from meter.web import askers as module
from meter.web.askers import ASKER_SECONDS_MAX, Askers

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
PEPPER = b"a pepper that is kept outside the database"
_, TOKEN = mint(Random(1).choice)
OWNER_TOKEN = "the owner's"
METRICS_TOKEN = "the scraper's"
CONFIGURED = {METRICS_TOKEN: SCRAPER, OWNER_TOKEN: OWNER}


class Registry:
    """Tokens that can be looked up, a clock to move, and a count of look-ups."""

    def __init__(self) -> None:
        self.tokens: dict[bytes, Token] = {}
        self.look_ups = 0
        self.away = False
        self.seconds = 0.0
        self.askers = Askers(
            configured=CONFIGURED,
            find_token=self.find,
            digest=lambda token: digest(token, PEPPER),
            clock=Clock(now=lambda: NOW + timedelta(seconds=self.seconds), monotonic=lambda: self.seconds),
        )

    def add(self, token: str, **fields: object) -> None:
        """Make a token known, or known otherwise."""
        values: dict[str, object] = {"id": "a", "role": Role.VIEWER, "name": "n", "created_at": NOW}
        self.tokens[digest(token, PEPPER)] = Token(**values | fields)  # type: ignore[arg-type]

    async def find(self, token_digest: bytes) -> Token | None:
        """Look a token up, as the database would."""
        self.look_ups += 1
        if self.away:
            raise MeteringUnavailable("away")
        return self.tokens.get(token_digest)

    def ask(self, token: str) -> object:
        """Return who asks, or the class of the refusal."""
        try:
            return asyncio.run(self.askers.find(token)).role
        except (InvalidAdminToken, MeteringUnavailable) as refusal:
            return type(refusal)


@pytest.fixture
def registry() -> Registry:
    """Give a registry with one token."""
    made = Registry()
    made.add(TOKEN)
    return made


def test_a_token_is_looked_up_once_in_five_seconds(registry: Registry) -> None:
    """A token that is in use costs a look-up every five seconds."""
    asked = []
    for seconds in (0, 1, ASKER_SECONDS_MAX - 0.1, ASKER_SECONDS_MAX):
        registry.seconds = seconds
        asked.append(registry.ask(TOKEN))

    assert asked == [Role.VIEWER] * 4
    assert registry.look_ups == 2


def test_a_revoked_token_ends_within_five_seconds(registry: Registry) -> None:
    """What is remembered is forgotten in time."""
    registry.ask(TOKEN)
    registry.add(TOKEN, revoked_at=NOW)
    registry.seconds = ASKER_SECONDS_MAX

    assert registry.ask(TOKEN) is InvalidAdminToken


def test_a_token_expires_while_it_is_remembered(registry: Registry) -> None:
    """A remembered token ends at its instant, not when it is forgotten."""
    registry.add(TOKEN, expires_at=NOW + timedelta(seconds=1))
    before = registry.ask(TOKEN)
    registry.seconds = 1

    assert (before, registry.ask(TOKEN)) == (Role.VIEWER, InvalidAdminToken)
    assert registry.look_ups == 1


def test_wrong_tokens_are_remembered_too_in_a_bounded_table(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong token costs one look-up, and a flood of them no memory."""
    monkeypatch.setattr(module, "TOKENS_REMEMBERED_MAX", 10)
    wrong = [mint(Random(seed).choice)[1] for seed in range(2, 102)]

    assert {registry.ask(token) for token in wrong for _ in range(2)} == {InvalidAdminToken}
    assert registry.look_ups == 100
    assert len(registry.askers._remembered) == 10  # noqa: SLF001 (the bound is what this is about)


def test_what_has_no_tokens_shape_is_not_looked_up(registry: Registry) -> None:
    """Garbage costs no look-up at all."""
    for text in ("", "x", "mtr_" + TOKEN[4:], TOKEN + "x", "é", "\udcff"):
        assert registry.ask(text) is InvalidAdminToken

    assert registry.look_ups == 0


def test_with_the_database_away_the_configured_still_work(registry: Registry) -> None:
    """Nobody can say that a token is wrong then; the owner's and the scraper's need no database."""
    registry.away = True

    assert registry.ask(TOKEN) is MeteringUnavailable
    assert registry.ask(OWNER_TOKEN) is Role.ADMIN
    assert registry.ask(METRICS_TOKEN) is Role.METRICS
    assert registry.ask(OWNER_TOKEN + "x") is InvalidAdminToken


def test_a_database_that_hangs_is_away(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up takes so long at most."""
    monkeypatch.setattr(module, "LOOK_UP_SECONDS_MAX", 0.01)

    async def hang(_digest: bytes) -> Token | None:
        await asyncio.Event().wait()
        return None

    hanging = Askers(
        configured=CONFIGURED,
        find_token=hang,
        digest=lambda token: digest(token, PEPPER),
        clock=Clock(now=lambda: NOW, monotonic=lambda: 0.0),
    )

    with pytest.raises(MeteringUnavailable):
        asyncio.run(hanging.find(TOKEN))
