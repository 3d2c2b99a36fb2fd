"""The search for what must never be written down finds it wherever it is."""

import asyncio

import pytest

from tests.faults import canaries, traffic
from tests.faults.canaries import secret_of
from tests.faults.case import Case
from tests.faults.script import CANARY_CREDENTIAL, CANARY_PROMPT, MODEL_SERVED, Plan
from tests.faults.site import POSTGRESQL, SQLITE, Site

PLACES = {
    SQLITE: {"journal", "log", "/metrics", "meter.db"},
    POSTGRESQL: {"journal", "log", "/metrics", "table usage_events"},
}


def _kinds(found: list[str]) -> set[str]:
    """Return in what kinds of places something was found."""
    kinds = {*PLACES[SQLITE], *PLACES[POSTGRESQL]}
    return {kind for each in found for kind in kinds if kind in each.partition(" is found in ")[2]}


@pytest.mark.long
@pytest.mark.parametrize("database", [SQLITE, POSTGRESQL])
def test_the_search_finds_what_is_there(database: str) -> None:
    """The name of the model that answers is in journal, database, log and metrics; no secret is."""
    with Case(database, 1).site(access_log="on") as site:
        site.start()
        site.script.play(Plan(pieces=1, pause=0, streams=False))
        asyncio.run(_ask(site))
        assert canaries.secrets_kept(site) == []

        # Were that name the secret of a key, it would be found.
        site.key = f"mtr_id_{MODEL_SERVED}"

        assert _kinds(canaries.secrets_kept(site)) == PLACES[database]


async def _ask(site: Site) -> None:
    """Ask, and wait until it is in the ledger and counted."""
    await traffic.ask(site.url, site.key, "harmless", stream=False)
    await traffic.until(lambda: site.events("harmless"), "the event")
    await traffic.until(lambda: MODEL_SERVED in site.metrics(), "the metrics")


@pytest.mark.long
def test_what_was_printed_is_searched() -> None:
    """The first key is shown at the first start: were it the secret one, it would be found."""
    with Case(SQLITE, 1).site() as site:
        site.start()
        site.key = site.running.first_key
        living = canaries.secrets_kept(site)
        site.end()
        dead = canaries.secrets_kept(site)
    assert len(living) == len(dead) == 1
    assert f"{secret_of(site.key)!r} is found in what process" in living[0]
    assert living == dead


@pytest.mark.long
def test_a_site_that_nobody_has_searched_is_searched_at_its_end() -> None:
    """An experiment that forgets the search is searched all the same."""
    case = Case(SQLITE, 1)
    with case.site() as site:
        site.start()
        (site.data_dir / "forgotten").write_text(f"the key is {CANARY_CREDENTIAL}")
    assert [CANARY_CREDENTIAL in leak and "forgotten" in leak for leak in case.leaks] == [True]


def test_an_error_that_repeats_the_prompt_is_noticed() -> None:
    """What a client is told is held against the secrets; only an answer has what was answered."""
    answer = b"HTTP/1.1 400 Bad Request\r\n\r\n" + CANARY_PROMPT.encode()
    with pytest.raises(AssertionError, match="I9"):
        canaries.not_told(answer, "mtr_id_secret", refused=True)
    with pytest.raises(AssertionError, match="I9"):
        canaries.not_told(b"HTTP/1.1 401\r\n\r\nmtr_id_secret", "mtr_id_secret", refused=True)
    canaries.not_told(b"HTTP/1.1 200 OK\r\n\r\ncanary-answer-91c7", "mtr_id_secret", refused=False)
