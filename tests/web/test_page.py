"""The spend page over HTTP: who gets in, what the pages say, and what no other site can do with them."""

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.cookies import Morsel
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import httpx
import pytest

from meter.app import actions
from meter.core.access import OWNER, Role
from meter.core.clock import Clock
from meter.core.errors import InvalidAdminToken
from meter.core.money import Picodollars, format_usd
from meter.core.sessions import FORMS, SESSIONS, unseal
from meter.core.subkeys import ADMIN_TOKENS, subkey
from meter.core.tokens import Token
from meter.web import sessions as sessions_module
from meter.web.access import SESSION_COOKIE
from meter.web.askers import Askers
from meter.web.page.forms import FORM_COOKIE, local
from meter.web.sessions import SessionKeys, Sessions
from tests.page import world
from tests.page.world import HOSTILE, World
from tests.web.conftest import OWNER_TOKEN, Office, open_office
from tests.web.visits import SAME_SITE, Visit, cookies_of, session_cookie, sign_in

NOW = datetime.now(UTC)
DAYS = "/spend?period=30d"
# A page that draws nothing.
CHEAP = "/spend/events"


class Site(NamedTuple):
    """A control plane over a month of history, and a client of it without any cookie of its own."""

    office: Office
    client: httpx.Client
    world: World
    owner: Visit

    def get(self, path: str, visit: Visit | None = None, **headers: str) -> httpx.Response:
        """Ask for a page, as the owner unless somebody else is named."""
        cookie = (self.owner if visit is None else visit).header
        return self.client.get(path, headers={"cookie": cookie, **headers}, follow_redirects=False)

    def report(self, **asked: str) -> Any:
        """Ask the admin API for a report."""
        headers = {"authorization": f"Bearer {OWNER_TOKEN}"}
        return self.client.get("/api/v1/reports", params=asked, headers=headers).json()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Open a control plane for all tests of this file."""
    folder: Path = tmp_path_factory.mktemp("page")
    with open_office(folder) as office, office.asking(None) as client:
        made = world.fill(office.database, NOW)
        yield Site(office, client, made, session_cookie(client, OWNER_TOKEN))


def set_by(answer: httpx.Response, name: str = SESSION_COOKIE) -> Morsel[str] | None:
    """Return a cookie that an answer sets."""
    return cookies_of(answer).get(name)


def test_the_root_leads_to_the_page(site: Site) -> None:
    """A browser that is pointed at the listener gets there, and before that to the form."""
    root = site.client.get("/", follow_redirects=False)
    page = site.client.get("/spend?period=7d", follow_redirects=False)

    assert (root.status_code, root.headers["location"]) == (303, "/spend")
    assert (page.status_code, page.headers["location"]) == (303, "/sign-in?next=%2Fspend%3Fperiod%3D7d")


def test_the_cookie_has_every_guard(site: Site) -> None:
    """It goes to this host alone, to no script, with no other site's request, and ends."""
    answer = sign_in(site.client, OWNER_TOKEN, next="/spend?period=7d")
    session, form = set_by(answer), set_by(answer, FORM_COOKIE)

    assert (answer.status_code, answer.headers["location"]) == (303, "/spend?period=7d")
    assert session is not None
    assert SESSION_COOKIE.startswith("__Host-")
    assert (session["path"], session["domain"], session["secure"], session["httponly"]) == (
        "/",
        "",
        True,
        True,
    )
    assert (session["samesite"], session["max-age"]) == ("strict", "43200")
    assert form is not None
    assert form["max-age"] == "0"
    assert OWNER_TOKEN not in session.value


@pytest.mark.parametrize(
    "token", ["", "wrong", f"mta_{'a' * 12}_{'a' * 43}", "x" * 10_000, "é", "a client's key", "a revoked one"]
)
def test_a_wrong_token_is_told_so(site: Site, token: str) -> None:
    """The form comes again, with the same words whatever is wrong, and with no cookie."""
    if token == "a client's key":
        token = actions.issue_key(site.office.database, b"x" * 32, "test", "search", None, None)[1]
    elif token == "a revoked one":
        token = site.office.token(Role.ADMIN)
        actions.revoke_token(site.office.database, "test", token.split("_")[1])

    answer = sign_in(site.client, token)

    assert answer.status_code == 401
    assert "This token is not valid" in answer.text
    assert set_by(answer) is None


def test_a_scrapers_token_does_not_sign_in(site: Site) -> None:
    """It is a good token, but not for this."""
    answer = sign_in(site.client, site.office.token(Role.METRICS))

    assert answer.status_code == 403
    assert set_by(answer) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1:8081"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8082"},
    ],
)
@pytest.mark.parametrize("path", ["/sign-in", "/sign-out"])
def test_another_sites_form_is_refused(site: Site, path: str, headers: dict[str, str]) -> None:
    """Even with every cookie and every token in it, and nothing has happened."""
    visit = session_cookie(site.client, OWNER_TOKEN)
    form = site.client.get("/sign-in")
    cookie = f"{visit.header}; {FORM_COOKIE}={cookies_of(form)[FORM_COOKIE].value}"

    answer = site.client.post(
        path, data={"token": OWNER_TOKEN, "form": visit.form}, headers={"cookie": cookie, **headers}
    )

    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert site.get(CHEAP, visit).status_code == 200


@pytest.mark.parametrize("form", ["", "wrong", "another session's"])
@pytest.mark.parametrize("path", ["/sign-in", "/sign-out"])
def test_a_form_without_its_token_is_refused(site: Site, path: str, form: str) -> None:
    """Nor does a form of one browser's session work in another's."""
    visit = session_cookie(site.client, OWNER_TOKEN)
    form = site.owner.form if form == "another session's" else form
    headers = SAME_SITE | {"cookie": f"{visit.header}; {FORM_COOKIE}=a-browser"}

    answer = site.client.post(path, data={"token": OWNER_TOKEN, "form": form}, headers=headers)

    assert answer.status_code == 403
    assert set_by(answer) is None
    assert site.get(CHEAP, visit).status_code == 200


def test_a_browser_that_keeps_no_cookie_is_told_why(site: Site) -> None:
    """Over plain HTTP from afar it would ask for ever."""
    answer = site.client.post("/sign-in", data={"token": OWNER_TOKEN}, headers=SAME_SITE)

    assert answer.status_code == 403
    assert "HTTPS" in answer.text


def test_signing_out_ends_the_session_and_no_other(site: Site) -> None:
    """A copy of the cookie is worth nothing afterwards."""
    visit, other = session_cookie(site.client, OWNER_TOKEN), session_cookie(site.client, OWNER_TOKEN)

    answer = site.client.post(
        "/sign-out",
        data={"form": visit.form},
        headers=SAME_SITE | {"cookie": visit.header},
        follow_redirects=False,
    )
    emptied = set_by(answer)

    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert emptied is not None
    assert (emptied.value, emptied["max-age"]) == ("", "0")
    assert site.get(CHEAP, visit).status_code == 303
    assert site.get(CHEAP, other).status_code == 200


def test_a_changed_cookie_opens_nothing(site: Site) -> None:
    """Whichever character it is that was changed."""
    name, _, value = site.owner.header.partition("=")

    for at in range(0, len(value), 7):
        changed = value[:at] + ("A" if value[at] != "A" else "B") + value[at + 1 :]
        assert site.get(CHEAP, Visit(f"{name}={changed}", "")).status_code == 303, at


def test_a_session_of_a_revoked_token_is_over(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the seconds for which tokens are remembered, as everywhere."""
    monkeypatch.setattr("meter.web.askers.ASKER_SECONDS_MAX", 0)
    token = site.office.token(Role.VIEWER)
    visit = session_cookie(site.client, token)
    before = site.get(CHEAP, visit)

    actions.revoke_token(site.office.database, "test", token.split("_")[1])
    after = site.get(CHEAP, visit)

    assert (before.status_code, after.status_code) == (200, 303)
    emptied = set_by(after)
    assert emptied is not None
    assert emptied["max-age"] == "0"


class Hall:
    """Sessions by a clock of one's own, for one token."""

    def __init__(self, expires_at: datetime | None = None) -> None:
        self.now = NOW
        token = Token(id="i", role=Role.VIEWER, name="n", created_at=NOW, expires_at=expires_at)

        async def find_token(_digest: bytes) -> Token | None:
            return token

        clock = Clock(now=self._now, monotonic=self._monotonic)
        askers = Askers(
            configured={OWNER_TOKEN: OWNER}, find_token=find_token, digest=str.encode, clock=clock
        )
        keys = SessionKeys(sessions=b"s" * 32, forms=b"f" * 32)
        self.sessions = Sessions(askers=askers, keys=keys, lasts=timedelta(hours=12), clock=clock)

    def _now(self) -> datetime:
        return self.now

    def _monotonic(self) -> float:
        return self.now.timestamp()


TOKEN = f"mta_{'a' * 12}_{'a' * 43}"


async def is_over(hall: Hall, cookie: str) -> bool:
    """Say whether a session has ended."""
    try:
        await hall.sessions.find(cookie)
    except InvalidAdminToken:
        return True
    return False


@pytest.mark.parametrize(("expires_after_hours", "lasts_hours"), [(None, 12), (3, 3), (50, 12)])
def test_a_session_ends_with_its_time_or_its_tokens(
    expires_after_hours: int | None, lasts_hours: int
) -> None:
    """Whichever comes first."""

    async def scenario() -> None:
        expires = None if expires_after_hours is None else NOW + timedelta(hours=expires_after_hours)
        hall = Hall(expires)
        cookie = await hall.sessions.begin(TOKEN)
        hall.now = NOW + timedelta(hours=lasts_hours, seconds=-1)
        assert not await is_over(hall, cookie)
        hall.now += timedelta(seconds=1)
        assert await is_over(hall, cookie)

    asyncio.run(scenario())


def test_the_list_of_ended_sessions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signing in and out without end takes no memory without end; the newest of them stay ended."""
    monkeypatch.setattr(sessions_module, "SIGNED_OUT_MAX", 2)

    async def scenario() -> list[bool]:
        hall = Hall()
        cookies = [await hall.sessions.begin(TOKEN) for _ in range(3)]
        for cookie in cookies:
            hall.sessions.end(cookie)
        return [await is_over(hall, cookie) for cookie in cookies]

    assert asyncio.run(scenario()) == [False, True, True]


def test_the_keys_of_sessions_are_their_own(site: Site) -> None:
    """A cookie is signed neither with the pepper nor with the key of forms or of tokens."""
    value = site.owner.header.partition("=")[2]
    pepper = b"a pepper that is kept outside the database"

    opened = [unseal(value, key) for key in (pepper, subkey(pepper, FORMS), subkey(pepper, ADMIN_TOKENS))]

    assert opened == [None, None, None]
    assert unseal(value, subkey(pepper, SESSIONS)) is not None


@pytest.mark.parametrize(
    ("address", "leads_to"),
    [
        ("/spend", "/spend"),
        ("/spend?team=a%26b", "/spend?team=a%26b"),
        ("/spend/events/x", "/spend/events/x"),
        ("https://evil.example/spend", "/spend"),
        ("//evil.example/spend", "/spend"),
        ("/spend.evil.example", "/spend"),
        ("/spend\\@evil.example", "/spend"),
        ("/spend?\r\nset-cookie: a=b", "/spend"),
        ("/spend?" + "x" * 3000, "/spend"),
        ("/api/v1/keys", "/spend"),
        ("javascript:alert(1)", "/spend"),
        ("", "/spend"),
    ],
)
def test_signing_in_leads_to_the_page_alone(address: str, leads_to: str) -> None:
    """A link that pretends to lead in leads nowhere else."""
    assert local(address) == leads_to


def test_a_link_from_elsewhere_asks_again_for_itself(site: Site) -> None:
    """Browsers send no strict cookie along with another site's link, though its reader has signed in."""
    from_mail = site.client.get(
        "/spend?team=search", headers={"sec-fetch-site": "cross-site"}, follow_redirects=False
    )
    by_itself = site.client.get(
        "/spend?team=search", headers={"sec-fetch-site": "same-origin"}, follow_redirects=False
    )

    assert from_mail.status_code == 200
    assert 'content="0; url=/spend?team=search"' in from_mail.text
    assert by_itself.status_code == 303


@pytest.mark.parametrize(
    "path", ["/spend", "/sign-in", "/spend/events", "/spend?tz=Nowhere", "/spend/events/x"]
)
def test_every_page_has_its_headers(site: Site, path: str) -> None:
    """What is shown runs nothing of others, is framed by nobody, kept by nobody, and hands no address on."""
    headers = site.get(path).headers

    policy = dict(each.strip().split(" ", 1) for each in headers["content-security-policy"].split(";"))
    assert (policy["default-src"], policy["frame-ancestors"], policy["form-action"]) == (
        "'self'",
        "'none'",
        "'self'",
    )
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert headers["content-type"] == "text/html; charset=utf-8"


def test_pages_hold_nothing_that_the_policy_forbids(site: Site) -> None:
    """No style and no script stands in a page, nor does anything come from elsewhere."""
    for path in (
        DAYS,
        "/spend/events",
        f"/spend/events/{site.world.newest('notebooks').event_id}",
        "/sign-in",
    ):
        text = site.get(path).text
        assert not re.search(
            r"<style|<script>|\sstyle=|\son\w+=|javascript:", text.replace(escaped(HOSTILE), "")
        )
        assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", text)


def escaped(text: str) -> str:
    """Write a text as pages do."""
    return text.replace("<", "&lt;").replace(">", "&gt;")


def test_files_are_served_by_their_versions(site: Site) -> None:
    """What a page names is there and may be kept; anything else is not there."""
    text = site.client.get("/sign-in").text
    addresses = re.findall(r'"(/assets/[^"]+)"', text)

    assert len(set(addresses)) == 3
    for address in addresses:
        answer = site.client.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    assert site.client.get("/assets/..%2fassets.py").status_code == 404
    assert site.client.get("/assets/page.py").status_code == 404


def value_of(text: str, element: str) -> str:
    """Return the number in an element of a page."""
    found = re.search(rf'id="{element}">.*?<data[^>]* value="([^"]*)"', text, re.DOTALL)
    assert found is not None, element
    return found[1]


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("period=30d", {}),
        ("period=30d&tz=Europe/Berlin", {"tz": "Europe/Berlin"}),
        ("period=30d&team=search", {"team": "search"}),
        ("period=30d&model=anthropic/*", {"model": "anthropic/*"}),
        ("period=30d&key=notebooks&stack=model&unit=week", {"key": "notebooks"}),
    ],
)
def test_the_pages_totals_are_the_apis(site: Site, query: str, asked: dict[str, str]) -> None:
    """To the last digit: in all, of each part of the chart, of each key, and beside the time before."""
    tz = ZoneInfo(asked.get("tz", "UTC"))
    since = (datetime.now(tz) - timedelta(days=29)).date().isoformat()
    api = site.report(by="team,key", since=since, compare="true", **asked)
    total = api["total"]

    text = site.get(f"/spend?{query}").text
    table = text[text.index('class="keys"') :]
    costs = re.findall(r'<td class="number col-cost">.*?(?:value="([^"]*)"|unpriced)', table)
    befores = re.findall(r'<td class="number col-before">.*?(?:value="([^"]*)"|unpriced)', table)

    assert value_of(text, "total-cost") == total["cost_usd"]
    assert value_of(text, "total-requests") == str(total["requests"])
    assert value_of(text, "total-tokens") == str(total["total_tokens"])
    assert sorted(costs) == sorted([row["cost_usd"] or "" for row in api["rows"]] + [total["cost_usd"]])
    assert sorted(befores) == sorted(
        [row["previous_cost_usd"] or "" for row in api["rows"]] + [total["previous_cost_usd"]]
    )


def test_the_charts_numbers_are_the_apis(site: Site) -> None:
    """The table below the chart has each day and team as the API has it, and zeros where that has nothing.

    What has no price says so in either.
    """
    since = (NOW - timedelta(days=29)).date().isoformat()
    rows = site.report(by="day,team", since=since)["rows"]
    text = site.get(DAYS).text
    table = text[text.index("Numbers of the chart") :]
    table = table[: table.index("</table>")]
    heads = re.findall(r'<th scope="col" class="number">([^<]*)</th>', table)

    shown: dict[tuple[str, str], str | None] = {}
    for day, cells in re.findall(r'<tr><th scope="row">([^<]*)</th>(.*?)</tr>', table, re.DOTALL):
        written = re.findall(
            r'<td class="number">(?:<span class="(unpriced)">|<data class="usd" value="([^"]*)">)', cells
        )
        values = [None if unpriced else value for unpriced, value in written]
        shown |= {
            (day, name): value for name, value in zip(heads, values, strict=True) if value != "0.000000"
        }

    totals = {at: value for at, value in shown.items() if "Total" in at}
    assert {at: value for at, value in shown.items() if at not in totals} == {
        (row["day"], row["team"]): row["cost_usd"] for row in rows if row["cost_usd"] != "0.000000"
    }
    assert shown["Total", "Total"] == site.report(by="", since=since)["total"]["cost_usd"]


@pytest.mark.parametrize("path", [DAYS, f"{DAYS}&stack=key", "/spend/events?period=30d&key={key}"])
def test_a_hostile_name_is_text(site: Site, path: str) -> None:
    """In the table, the chart and the lists it stands as it was written."""
    text = site.get(path.format(key=site.world.keys[HOSTILE].id)).text

    assert escaped(HOSTILE) in text
    assert "<img src=x" not in text


def test_a_teams_viewer_sees_its_team_alone(site: Site) -> None:
    """Others' names and sums are nowhere, and another team's things are not there."""
    visit = session_cookie(site.client, site.office.token(Role.VIEWER, "search"))
    page = site.get(DAYS, visit)
    listed = site.get("/spend/events?period=30d", visit)
    since = (NOW - timedelta(days=29)).date().isoformat()
    of_team = site.report(by="", since=since, team="search")["total"]

    assert value_of(page.text, "total-cost") == of_team["cost_usd"]
    for text in (page.text, listed.text):
        assert "nightly-batch" in text
        for other in ("support", "research", "mobile", "notebooks", "reply-drafts", escaped(HOSTILE)):
            assert other not in text, other
    for path in ("/spend?team=research", "/spend?key=notebooks", "/spend/events?team=research"):
        assert site.get(path, visit).status_code == 404
    for key, status in (("nightly-batch", 200), ("notebooks", 404)):
        event_id = site.world.newest(key).event_id
        assert site.get(f"/spend/events/{event_id}", visit).status_code == status


def test_the_note_of_a_price_is_not_for_a_team(site: Site) -> None:
    """What an operator wrote beside a price is for those who may list prices."""
    path = f"/spend/events/{site.world.newest('nightly-batch').event_id}"
    team = session_cookie(site.client, site.office.token(Role.VIEWER, "search"))
    viewer = session_cookie(site.client, site.office.token(Role.VIEWER))

    assert "our contract" not in site.get(path, team).text
    assert "our contract" in site.get(path, viewer).text


def test_an_event_is_explained(site: Site) -> None:
    """Its cost is the ledger's, and the summands add up to it."""
    event = site.world.newest("notebooks")

    text = site.get(f"/spend/events/{event.event_id}?tz=Asia/Tokyo").text

    assert value_of(text, "event-cost") == format_usd(Picodollars(event.cost or 0))
    assert f"{event.started_at.astimezone(ZoneInfo('Asia/Tokyo')):%Y-%m-%d %H:%M:%S}" in text
    assert "anthropic/claude-sonnet-4" in text


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/spend?tz=Mars", 400, "Unknown time zone"),
        ("/spend?since=yesterday", 400, "Not a date"),
        ("/spend?since=2026-11-02&until=2026-11-01", 400, "ends before it begins"),
        ("/spend?period=12m&unit=hour", 400, "longer unit"),
        ("/spend?team=nobody", 404, "nobody"),
        ("/spend?key=%00", 404, "no key"),
        ("/spend/events?outcome=maybe", 400, "outcome"),
        ("/spend/events?cursor=x", 400, "cursor"),
        ("/spend/events?model=a*", 400, "one whole name"),
        ("/spend/events/not-an-id", 404, "not-an-id"),
        ("/spend/events/%3Cimg%20src=x%3E", 404, "&lt;img src=x&gt;"),
    ],
)
def test_what_cannot_be_shown_is_a_page_that_says_so(site: Site, path: str, status: int, words: str) -> None:
    """In words, with a way back, and never with more than was asked."""
    answer = site.get(path)

    assert answer.status_code == status, answer.text
    assert words in answer.text
    assert "<img src=x" not in answer.text
    assert 'href="/spend"' in answer.text


def test_events_are_listed_a_page_at_a_time(site: Site) -> None:
    """The pages have each event once, the newest first, and keep the filter."""
    path: str | None = "/spend/events?period=30d&key=query-rewriter"
    seen: list[str] = []
    while path is not None:
        text = site.get(path).text
        seen += re.findall(r'<th scope="row"><a href="/spend/events/([0-9a-f-]{36})', text)
        following = re.search(r'<a href="([^"]*)" rel="next">Older', text)
        path = following and following[1].replace("&amp;", "&")

    first = NOW.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=29)
    key_id = site.world.keys["query-rewriter"].id
    expected = [e.event_id for e in site.world.events if e.key_id == key_id and e.started_at >= first]
    assert seen == expected[::-1]
    assert len(seen) > 100


def test_nothing_says_what_to_do_next(office: Office) -> None:
    """Before the first request, the page says how to make one, a key and a budget."""
    with office.asking(None) as client:
        visit = session_cookie(client, OWNER_TOKEN)
        empty = client.get("/spend", headers={"cookie": visit.header}).text
        filtered = client.get("/spend?model=none", headers={"cookie": visit.header}).text
        events = client.get("/spend/events", headers={"cookie": visit.header}).text

    assert "meter keys create" in empty
    assert "meter budgets set" in empty
    assert "Take the filters away" in filtered
    assert "No request of this period fits" in events


def test_sessions_need_no_database_for_the_owner(office: Office) -> None:
    """While it is away the owner signs in, and is told that it is away."""
    with office.asking(None) as client:
        office.database.dispose()
        path = Path(str(office.database.url.database))
        path.rename(path.with_suffix(".away"))
        path.mkdir()
        visit = sign_in(client, OWNER_TOKEN)
        session = set_by(visit)
        assert session is not None
        answer = client.get("/spend", headers={"cookie": f"{SESSION_COOKIE}={session.value}"})

    assert answer.status_code == 503
    assert "The database is away" in answer.text
