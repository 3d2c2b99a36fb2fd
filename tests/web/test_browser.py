"""The spend page in a real browser, before a real server, as people use it.

`make screenshots` has it take the pictures of the documentation too.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, StorageState, expect, sync_playwright

from tests import server, services
from tests.page import world
from tests.page.world import HOSTILE, World
from tests.server import Meter
from tests.web.visits import session_cookie

NOW = datetime.now(UTC)
# A machine that is busy with other tests takes its time; nothing here waits that long by itself.
PATIENCE_MS = 60_000
DAYS = "/spend?period=30d"
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 780}
REPORTS_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`forbidden by policy: ${event.violatedDirective} ${event.blockedURI}`));
"""
# The least contrast of any text that is shown, by the formula of WCAG 2.
LEAST_CONTRAST = """
() => {
  const rgba = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = rgba(getComputedStyle(at).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  let least = { ratio: 99 };
  for (const element of document.querySelectorAll("body *:not(svg *)")) {
    const text = [...element.childNodes].filter((node) => node.nodeType === 3 && node.data.trim());
    if (!text.length || !element.checkVisibility() || element.closest(".hush, .skip")) continue;
    const [one, other] = [light(rgba(getComputedStyle(element).color)), light(ground(element))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < least.ratio) least = { ratio, text: text[0].data.trim() };
  }
  return least;
}
"""


# None of what a browser does beside showing pages.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--in-process-gpu",
    "--renderer-process-limit=1",
)


class Site(NamedTuple):
    """A server with a month of history, and a browser."""

    meter: Meter
    world: World
    browser: Browser
    state: StorageState
    """What the browser of somebody who has signed in with the admin token keeps."""

    def total(self, **asked: str) -> str:
        """Ask the admin API what was spent."""
        with self.meter.control as control:
            total = control.get("/api/v1/reports", params={"by": "", **asked}).json()["total"]
        return str(total["cost_usd"])

    def token(self, **members: str) -> str:
        """Make a token over the admin API."""
        with self.meter.control as control:
            return str(control.post("/api/v1/tokens", json=members).json()["token"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run one server and one browser for all tests of this file."""
    program = services.chromium()
    expect.set_options(timeout=PATIENCE_MS)
    with (
        server.running(tmp_path_factory.mktemp("browser") / "data", "--sample") as meter,
        sync_playwright() as playwright,
    ):
        made = world.fill(meter.database, NOW)
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield Site(meter, made, browser, signed_in(meter))
        browser.close()


def signed_in(meter: Meter) -> StorageState:
    """Sign in as the owner without a browser, for those who come to look at something else."""
    with httpx.Client(base_url=meter.control_url, trust_env=False) as client:
        name, _, value = session_cookie(client, meter.admin_token).header.partition("=")
    cookie: Any = {
        "name": name,
        "value": value,
        "domain": "127.0.0.1",
        "path": "/",
        "secure": True,
        "httpOnly": True,
        "sameSite": "Strict",
        "expires": -1,
    }
    return {"cookies": [cookie], "origins": []}


class Visitor:
    """Somebody at a browser of their own, and everything that it complained about."""

    def __init__(self, site: Site, **options: Any) -> None:
        self.complaints: list[str] = []
        options = {"viewport": WIDE, "color_scheme": "light", "reduced_motion": "reduce"} | options
        self.context: BrowserContext = site.browser.new_context(base_url=site.meter.control_url, **options)
        self.context.set_default_timeout(PATIENCE_MS)
        self.context.add_init_script(REPORTS_VIOLATIONS)
        self.page: Page = self.context.new_page()
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda fault: self.complaints.append(f"script: {fault}"))
        self.page.on("dialog", self._dismiss)

    def sign_in(self, token: str, path: str = "/") -> Page:
        """Go to a page, by way of the form that comes first."""
        self.page.goto(path)
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url("**/spend**")
        return self.page

    def picture(self, name: str, path: str | None = None) -> None:
        """Take a picture for the documentation, if somebody wants them; of another page, if it is named."""
        folder = os.environ.get("METER_TEST_SCREENSHOTS")
        if folder and path is not None:
            self.page.goto(path)
        if folder:
            self.page.screenshot(path=Path(folder) / f"{name}.png")

    def overflow(self) -> int:
        """Return by how much the page is wider than the screen."""
        found: int = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        return found

    def _dismiss(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@pytest.fixture
def visitors(site: Site) -> Iterator[list[Visitor]]:
    """Keep whoever comes until the test ends; no browser may have complained of anything."""
    came: list[Visitor] = []
    yield came
    for visitor in came:
        visitor.context.close()
    assert [visitor.complaints for visitor in came] == [[] for _ in came]


def arrive(site: Site, visitors: list[Visitor], **options: Any) -> Visitor:
    """Open a browser window for somebody new."""
    visitors.append(Visitor(site, **options))
    return visitors[-1]


@pytest.fixture(scope="module")
def window(site: Site) -> Visitor:
    """Open one window for the owner, since opening one takes as long as a test."""
    return Visitor(site, storage_state=site.state)


@pytest.fixture
def owner(window: Visitor) -> Iterator[Visitor]:
    """Give somebody who has signed in with the admin token, and looks at thirty days."""
    window.page.goto(DAYS)
    yield window
    assert window.complaints == []


def shown(page: Page, selector: str = "#total-cost data") -> str:
    """Return the exact number that stands somewhere."""
    return page.locator(selector).first.get_attribute("value") or ""


def since(days: int) -> str:
    """Return the day from which a period of so many days counts."""
    return (datetime.now(UTC) - timedelta(days=days - 1)).date().isoformat()


def test_signing_in_and_out(site: Site, visitors: list[Visitor]) -> None:
    """A wrong token is told so, a good one leads to what was asked for, and signing out ends it."""
    visitor = arrive(site, visitors)
    page = visitor.page
    page.goto("/spend?period=7d&stack=model")
    page.get_by_label("Token").fill("mta_wrong")
    # A browser tells of a status of 401 too, though the page says it well enough.
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not valid")
    visitor.complaints = [each for each in visitor.complaints if "401" not in each]

    page.get_by_label("Token").fill(site.meter.admin_token)
    page.keyboard.press("Enter")
    page.wait_for_url("**/spend?period=7d&stack=model")
    expect(page.get_by_role("heading", name="Spend", exact=True)).to_be_visible()

    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in")
    page.go_back()
    page.goto("/spend")
    page.wait_for_url("**/sign-in?**")


def test_period_and_grouping_change_with_the_address(site: Site, owner: Visitor) -> None:
    """Each choice is a link, keeps the others, and shows the API's numbers; its address shows the same."""
    page = owner.page
    assert shown(page) == site.total(since=since(30))
    owner.picture("spend")

    page.get_by_role("link", name="7 days").click()
    page.wait_for_url("**/spend?period=7d")
    assert shown(page) == site.total(since=since(7))
    page.get_by_role("group", name="Stack by").get_by_role("link", name="model").click()
    page.wait_for_url("**/spend?period=7d&stack=model")
    page.get_by_role("group", name="Show").get_by_role("link", name="tokens").click()
    page.wait_for_url("**measure=tokens")
    expect(page.get_by_role("heading", name="Tokens by day")).to_be_visible()
    expect(page.locator(".legend")).to_contain_text(world.CLAUDE)
    assert page.locator("svg.chart .bar rect").count() > 10

    page.get_by_text("Dates, time zone and filters").click()
    page.get_by_label("From").fill(since(20))
    page.get_by_label("Time zone").fill("America/New_York")
    page.get_by_role("textbox", name="Team").fill("search")
    page.get_by_role("button", name="Show", exact=True).click()
    page.wait_for_url("**team=search**")
    assert "key=" not in page.url
    expect(page.locator(".heading")).to_contain_text("America/New_York")
    of_search = {"since": since(20), "tz": "America/New_York", "team": "search"}
    assert shown(page) == site.total(**of_search)

    address = page.url
    page.goto("about:blank")
    page.goto(address)
    assert shown(page) == site.total(**of_search)
    page.get_by_role("link", name="take this filter away").click()
    expect(page.locator(".chips")).to_have_count(0)


def test_the_table_sorts_and_filters(owner: Visitor) -> None:
    """A heading sorts by its column, and again the other way; the filter finds keys and teams."""
    page = owner.page
    table = page.locator("table.keys")
    keys, heading = table.locator("tbody th a"), table.locator("thead .col-key")
    names = sorted((name for _, name, *_ in world.KEYS), key=str.casefold)

    heading.get_by_role("link").click()
    page.wait_for_url("**sort=key**")
    assert keys.all_inner_texts() == names
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.get_by_role("link").click()
    page.wait_for_url("**sort=-key**")
    assert keys.all_inner_texts() == names[::-1]

    page.get_by_label("Key or team contains").fill("supp")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**find=supp**")
    assert keys.all_inner_texts() == ["ticket-triage", "reply-drafts"]


def test_a_request_is_explained(site: Site, owner: Visitor) -> None:
    """From a key's count of requests to the list, and from there to the summands of one."""
    page = owner.page
    page.get_by_role("link", name="requests of notebooks").click()
    page.wait_for_url("**/spend/events?**")
    event = site.world.newest("notebooks")

    page.goto(f"/spend/events?period=30d&key={site.world.keys['notebooks'].id}&outcome=ok")
    page.locator("tbody th a").first.click()
    page.wait_for_url(f"**/spend/events/{event.event_id}**")
    with site.meter.control as control:
        cost = control.get(f"/api/v1/events/{event.event_id}").json()["cost_usd"]

    assert shown(page, "#event-cost data") == cost
    expect(page.locator("tfoot")).to_contain_text("Sum")
    owner.picture("request")


def test_a_teams_viewer_sees_its_team_alone(site: Site, visitors: list[Visitor]) -> None:
    """The numbers are its own, no other name is on the page, and another team's request is not there."""
    visitor = arrive(site, visitors)
    page = visitor.sign_in(site.token(role="viewer", team="search"), DAYS)

    assert shown(page) == site.total(since=since(30), team="search")
    text = page.content()
    assert "nightly-batch" in text
    for other in ("notebooks", "reply-drafts", "support", "research"):
        assert other not in text
    answer = page.request.get(f"/spend/events/{site.world.newest('notebooks').event_id}")
    assert answer.status == 404


def test_a_hostile_name_is_text(owner: Visitor) -> None:
    """It makes no element, asks nothing, and can be clicked like any other name."""
    page = owner.page
    assert page.locator("img[src='x']").count() == 0

    page.locator("table.keys").get_by_role("link", name=HOSTILE, exact=True).click()
    page.wait_for_url("**key=**")
    page.goto(f"{DAYS}&stack=key")
    page.get_by_text("The same numbers as a table").click()

    expect(page.get_by_role("columnheader", name=HOSTILE)).to_be_visible()
    assert page.locator("img[src='x']").count() == 0


def test_everything_is_reached_by_the_keyboard(owner: Visitor) -> None:
    """The first stop skips to the content; what has the focus shows it, and does what a click does."""
    page = owner.page
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Today")).to_be_focused()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"

    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**period=7d")
    page.get_by_text("Dates, time zone and filters").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    expect(page.get_by_label("From")).to_be_focused()


def test_a_phone_shows_all_of_it(site: Site, visitors: list[Visitor]) -> None:
    """At 360 pixels no page is wider than the screen, with everything unfolded."""
    visitor = arrive(site, visitors, viewport=PHONE, storage_state=site.state)
    page = visitor.page
    event = f"/spend/events/{site.world.newest('notebooks').event_id}"

    for path in ("/sign-in", "/spend/events?period=30d", event, f"{DAYS}&stack=key", "/spend?tz=Mars"):
        page.goto(path)
        page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
        assert visitor.overflow() <= 0, path
    visitor.picture("spend-phone", DAYS)
    # One is a refusal, of which a browser tells by itself.
    visitor.complaints = [each for each in visitor.complaints if "400" not in each]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(site: Site, visitors: list[Visitor], scheme: str) -> None:
    """In light and in dark, all text has the contrast that WCAG asks of small text."""
    visitor = arrive(site, visitors, color_scheme=scheme, storage_state=site.state)
    page = visitor.page
    page.goto(f"{DAYS}&tz=Europe/Berlin&model=*")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")

    assert (sum(ground) > 600) is (scheme == "light")
    least = page.evaluate(LEAST_CONTRAST)
    assert least["ratio"] >= 4.5, least
    if scheme == "dark":
        visitor.picture("spend-dark", DAYS)


def test_it_works_without_scripts(site: Site, visitors: list[Visitor]) -> None:
    """Signing in, filtering and sorting are forms and links."""
    visitor = arrive(site, visitors, java_script_enabled=False)
    page = visitor.sign_in(site.meter.admin_token, DAYS)

    page.get_by_label("Key or team contains").fill("supp")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**find=supp**")
    page.locator("table.keys").get_by_role("link", name="Requests", exact=True).click()
    page.wait_for_url("**sort=-requests**")

    assert page.locator("table.keys tbody th a").first.inner_text() == "ticket-triage"
    assert page.locator("svg.chart .bar rect").count() > 10
