"""Truth, clients, ledger and metrics, held against each other."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from meter.core.events import Outcome, UsageEvent, UsageSource
from meter.store import ledger
from tests.faults.script import PROMPT_TOKENS, Truth
from tests.faults.site import Site
from tests.faults.traffic import Got

# Servers look for journals of the dead every 10 s, and a shipper waits at most 5 s to try again.
QUIET_SECONDS_MAX = 16.0
# What a killed process may forget of its streams.
PROGRESS_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What an experiment's fault excuses."""

    extra: frozenset[Outcome] = frozenset({Outcome.UNREACHABLE})
    """Of these there may be events without an attempt: what falls between an intent and its request."""


STRICT = Allowed()
KILLED = Allowed(extra=frozenset({Outcome.UNREACHABLE, Outcome.INTERRUPTED}))
# Whether a request has been sent when its client leaves cannot be told from outside.
LEFT = Allowed(extra=frozenset({Outcome.UNREACHABLE, Outcome.CLIENT_CLOSED}))


def reconcile(
    site: Site,
    gots: Iterable[Got],
    prefix: str,
    allowed: Allowed = STRICT,
    truths: Mapping[str, list[Truth]] | None = None,
) -> list[str]:
    """Wait until the ledger has everything, and return every violation, by all truths or by these."""
    by_model = {got.model: got for got in gots}
    truths = site.script.truths() if truths is None else truths
    events = _quiet(site, truths, prefix)
    violations: list[str] = []
    for model in sorted(truths.keys() | events.keys() | by_model.keys()):
        found, sent, got = events.get(model, []), truths.get(model, []), by_model.get(model)
        violations += _attempts(model, sent, found, allowed)
        violations += _client(model, sent, got, found)
        for truth, event in zip(sent, found, strict=False):
            violations += _counts(truth, event, got if len(sent) == 1 else None)
    ids = [event.event_id for found in events.values() for event in found]
    if len(set(ids)) != len(ids):
        violations.append(f"I2: {len(ids) - len(set(ids))} events are twice in the ledger")
    violations += [f"I2/P7: {mismatch}" for mismatch in ledger.verify(site.database)[:5]]
    return violations


def settled(site: Site, model: str, count: int = 1) -> list[UsageEvent]:
    """Wait for the events of one request, and return them."""
    deadline = time.monotonic() + QUIET_SECONDS_MAX
    while len(found := site.events(model).get(model, [])) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def _quiet(site: Site, truths: Mapping[str, list[Truth]], prefix: str) -> dict[str, list[UsageEvent]]:
    """Wait for an event for each attempt, or until so long nothing has come that nothing will."""
    count, deadline = -1, 0.0
    while True:
        events = site.events(prefix)
        missing = any(len(events.get(model, [])) < len(sent) for model, sent in truths.items())
        if len(events) != count:
            count, deadline = len(events), time.monotonic() + QUIET_SECONDS_MAX
        if not missing or time.monotonic() > deadline:
            return events
        time.sleep(0.02)


def _attempts(model: str, sent: list[Truth], found: list[UsageEvent], allowed: Allowed) -> list[str]:
    if len(found) < len(sent):
        return [f"I1: {model} reached the upstream {len(sent)} times and has {len(found)} events"]
    extra = found[len(sent) :]
    excused = all(event.outcome in allowed.extra and event.status is None for event in extra)
    if not excused:
        outcomes = ", ".join(event.outcome for event in found)
        return [f"I1: {model} reached the upstream {len(sent)} times, its events are: {outcomes}"]
    return []


def _client(model: str, sent: list[Truth], got: Got | None, found: list[UsageEvent]) -> list[str]:
    if got is None or got.status != 200:
        return []
    answer = got.answer
    body = b"" if answer is None else answer.body
    if not any(truth.body.startswith(body) for truth in sent):
        return [f"I3: {model}: the client's {len(body)} bytes are no prefix of what the upstream sent"]
    if not got.whole:
        return []
    if not any(truth.body == body for truth in sent):
        return [f"I3: {model}: the client saw a proper end before the upstream's"]
    # A settle precedes the end of a response: whoever saw the end has an exact event.
    if not any(event.usage_source is UsageSource.REPORTED for event in found):
        kinds = ", ".join(f"{event.outcome}/{event.usage_source}" for event in found) or "missing"
        return [f"I1: {model}: the client has the whole response, and the event is {kinds}"]
    return []


def _counts(truth: Truth, event: UsageEvent, got: Got | None) -> list[str]:
    name = f"{truth.model} ({event.outcome}/{event.usage_source})"
    if event.outcome is Outcome.UNREACHABLE and not truth.request.sent:
        # Who answers nothing at all, not even by a status, charges nothing, as far as anybody can tell.
        return []
    if event.usage_source is UsageSource.REPORTED:
        expected = (PROMPT_TOKENS, truth.plan.completion_tokens)
        counts = (event.prompt_tokens, event.completion_tokens)
        return [] if counts == expected else [f"I1: {name} has {counts} and not {expected}"]
    if event.usage_source is not UsageSource.ESTIMATED or event.prompt_tokens <= 0:
        return [f"I1: {name} is charged {event.prompt_tokens} prompt tokens"]
    least = owed(truth, got, interrupted=event.outcome is Outcome.INTERRUPTED)
    if event.completion_tokens < least:
        return [f"I1: {name} is charged {event.completion_tokens} tokens, and {least} were emitted"]
    return []


def owed(truth: Truth, got: Got | None, *, interrupted: bool) -> int:
    """Return the tokens that an estimate must not be below.

    What a client has was read by meter. Of that, a process that died may have forgotten what it read in
    its last 200 ms: it noted its progress with the last piece, which it read after that was sent, or at most
    so long before.
    """
    if got is None or not got.texts:
        return 0
    if not interrupted:
        return got.texts
    last_sent = truth.sent_at[min(got.texts, len(truth.sent_at)) - 1]
    return got.texts_by(last_sent - PROGRESS_SECONDS)


def counters(site: Site, settled: int) -> list[str]:
    """Compare what a living process counted with what it settled, for the dead too (I5)."""
    names = ("meter_requests_total", "meter_usage_source_total")
    deadline = time.monotonic() + QUIET_SECONDS_MAX
    # What it settled for the dead counts as well.
    settled += site.adopted
    while any(site.counted(name) != settled for name in names) and time.monotonic() < deadline:
        time.sleep(0.05)
    found = {name: site.counted(name) for name in names}
    return [
        f"I5: {name} is {count:.0f}, settled were {settled}"
        for name, count in found.items()
        if count != settled
    ]


def told(site: Site) -> list[str]:
    """Ask the commands: verify says ok, and the report counts what is not reported (I2, I12)."""
    verified = site.running.run("verify")
    said = [] if verified.stdout.strip() == "ok" else [f"I2: verify says {verified.stdout}{verified.stderr}"]
    total = site.running.report("--until", "2100-01-01")["total"]
    events = [event for found in site.events().values() for event in found]
    for source, name in (
        (UsageSource.ESTIMATED, "estimated_requests"),
        (UsageSource.INVALID, "invalid_requests"),
    ):
        count = sum(event.usage_source is source for event in events)
        if total[name] != count:
            said.append(f"I12: the report has {total[name]} as {name}, the ledger {count}")
    if total["requests"] != len(events):
        said.append(f"P7: the report has {total['requests']} requests, the ledger {len(events)}")
    return said


def descriptors_back(site: Site, baseline: int) -> list[str]:
    """Wait for the server's open files to be as few as they were (I7)."""
    deadline = time.monotonic() + 60
    # Those to the database are opened on first use: a few for look-ups, writes and reports each.
    allowed = baseline + 4
    while (count := site.descriptors()) > allowed and time.monotonic() < deadline:
        time.sleep(0.05)
    return [f"I7: {count} files are open, {baseline} were at rest"] if count > allowed else []
