"""Metrics count what was settled, under labels that no client can multiply; in one process or in several."""

import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from meter import __version__
from meter.core.budgets import Budget, Enforcement, Measure, OwnerKind, Standing
from meter.core.events import Outcome, UsageEvent, UsageSource
from meter.core.rollup import Sums
from meter.metrics import CONTENT_TYPE, MODELS_NAMED_MAX, OTHER, LedgerFigures, Metrics, forget, share
from meter.metrics.names import CHARACTERS_MAX

TEAM = "search"
ROOT = Path(__file__).parent.parent.parent
KINDS = {"prompt": 10, "completion": 5, "cached": 4, "cache_write": 2, "reasoning": 3}


def make(model: str = "m", **fields: object) -> UsageEvent:
    """Make an event that ended well, unless told otherwise."""
    values: dict[str, object] = {
        "event_id": "019ab1c2-0000-7000-8000-000000000000",
        "started_at": datetime(2026, 11, 23, tzinfo=UTC),
        "team_id": "team-id",
        "key_id": "key-id",
        "route": "chat.completions",
        "upstream": "upstream",
        "model_requested": model,
        "stream": False,
        "outcome": Outcome.OK,
        "usage_source": UsageSource.REPORTED,
        "status": 200,
        **{f"{kind}_tokens": count for kind, count in KINDS.items()},
    }
    return UsageEvent(**values | fields)  # type: ignore[arg-type]


def samples(metrics: Metrics) -> Iterator[Sample]:
    """Read the page as Prometheus does."""
    return read(metrics.render().decode())


def read(page: str) -> Iterator[Sample]:
    """Read a page as Prometheus does."""
    for family in text_string_to_metric_families(page):
        yield from family.samples


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Return the value of one series."""
    found = [sample.value for sample in samples(metrics) if sample.name == name and sample.labels == labels]
    return found[0] if found else None


def series(metrics: Metrics) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    """Return the names and labels of all series."""
    return {(sample.name, frozenset(sample.labels.items())) for sample in samples(metrics)}


def test_an_event_is_counted() -> None:
    """One event counts once, under its team, its model and its outcome."""
    metrics = Metrics()

    metrics.observe(make(cost=1_500_000_000_000, ttfb_ms=120, duration_ms=700), TEAM)

    assert value(metrics, "meter_requests_total", team=TEAM, model="m", outcome="ok") == 1
    assert value(metrics, "meter_cost_usd_total", team=TEAM, model="m") == 1.5
    assert value(metrics, "meter_unpriced_total", team=TEAM, model="m") is None
    assert value(metrics, "meter_usage_source_total", source="reported") == 1
    assert value(metrics, "meter_usage_source_tokens_total", source="reported") == 15
    assert value(metrics, "meter_ttfb_seconds_count") == 1
    assert value(metrics, "meter_ttfb_seconds_sum") == pytest.approx(0.12)
    assert value(metrics, "meter_duration_seconds_sum") == pytest.approx(0.7)


def test_what_an_attempt_took_is_counted() -> None:
    """What meter adds is counted of every attempt, the time to the first token of those that had one."""
    metrics = Metrics()

    metrics.time(0.002, 0.3)
    metrics.time(0.004, None)

    assert value(metrics, "meter_overhead_seconds_count") == 2
    assert value(metrics, "meter_overhead_seconds_sum") == pytest.approx(0.006)
    assert value(metrics, "meter_first_token_seconds_count") == 1
    assert value(metrics, "meter_first_token_seconds_sum") == pytest.approx(0.3)


def test_every_kind_of_token_is_counted() -> None:
    """Tokens are counted by kind, the kinds are those of the columns, and there are no others."""
    metrics = Metrics()

    for _ in range(2):
        metrics.observe(make(), TEAM)

    found = {
        sample.labels["kind"]: sample.value
        for sample in samples(metrics)
        if sample.name == "meter_tokens_total"
    }
    assert found == {kind: 2 * count for kind, count in KINDS.items()}


def test_an_unpriced_event_is_counted_as_such() -> None:
    """An unknown cost is no zero: it is counted in a metric of its own."""
    metrics = Metrics()

    metrics.observe(make(cost=None), TEAM)
    metrics.observe(make(cost=0), TEAM)

    assert value(metrics, "meter_unpriced_total", team=TEAM, model="m") == 1
    assert value(metrics, "meter_cost_usd_total", team=TEAM, model="m") == 0


def test_costs_that_both_sides_tell_are_compared() -> None:
    """Where the upstream tells a cost and so do we, both are counted by model, and nowhere else."""
    metrics = Metrics()

    metrics.observe(make(cost=10**12, upstream_cost=15 * 10**11), TEAM)
    metrics.observe(make(cost=0, upstream_cost=10**12), "another")
    for cost, upstream_cost in ((10**12, None), (None, 10**12), (None, None)):
        metrics.observe(make(cost=cost, upstream_cost=upstream_cost), TEAM)
    metrics.observe(make("never-answered", cost=10**12, upstream_cost=0, status=500), TEAM)

    assert value(metrics, "meter_compared_cost_usd_total", model="m") == 1
    assert value(metrics, "meter_compared_upstream_cost_usd_total", model="m") == 2.5
    assert value(metrics, "meter_compared_cost_usd_total", model=OTHER) == 1
    assert value(metrics, "meter_compared_cost_usd_total", model="never-answered") is None


@pytest.mark.parametrize("outcome", Outcome)
def test_outcomes_are_labels_by_value(outcome: Outcome) -> None:
    """Every outcome is a label by the name that the ledger has for it."""
    metrics = Metrics()

    metrics.observe(make(outcome=outcome), TEAM)

    assert value(metrics, "meter_requests_total", team=TEAM, model="m", outcome=outcome.value) == 1


@pytest.mark.parametrize("source", UsageSource)
def test_sources_are_labels_by_value(source: UsageSource) -> None:
    """Every source of counts is a label by the name that the ledger has for it."""
    metrics = Metrics()

    metrics.observe(make(usage_source=source), TEAM)

    assert value(metrics, "meter_usage_source_total", source=source.value) == 1


def test_the_served_model_is_named() -> None:
    """The model that answered is the label, not the one that was asked for."""
    metrics = Metrics()

    metrics.observe(make("alias", model_served="served"), TEAM)

    assert value(metrics, "meter_requests_total", team=TEAM, model="served", outcome="ok") == 1


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Outcome.UPSTREAM_ERROR, 404),
        (Outcome.UPSTREAM_ERROR, 302),
        (Outcome.UPSTREAM_ERROR, 500),
        (Outcome.UNREACHABLE, None),
        (Outcome.INTERRUPTED, None),
        (Outcome.CLIENT_CLOSED, None),
    ],
)
def test_a_model_that_never_answered_is_other(outcome: Outcome, status: int | None) -> None:
    """A name becomes a label only by an answer of success; until then it is `other`."""
    metrics = Metrics()

    metrics.observe(make("made-up", outcome=outcome, status=status), TEAM)

    assert value(metrics, "meter_requests_total", team=TEAM, model=OTHER, outcome=outcome.value) == 1
    assert b"made-up" not in metrics.render()


def test_a_known_model_keeps_its_name_when_it_fails() -> None:
    """Once a model has answered, its failures are counted under its name."""
    metrics = Metrics()
    metrics.observe(make("m"), TEAM)

    metrics.observe(make("m", outcome=Outcome.UPSTREAM_ERROR, status=500), TEAM)

    assert value(metrics, "meter_requests_total", team=TEAM, model="m", outcome="upstream_error") == 1


def test_made_up_models_make_no_series() -> None:
    """50,000 names that no upstream knows leave the number of series as it is."""
    metrics = Metrics()
    metrics.observe(make("m"), TEAM)
    failed = {"outcome": Outcome.UPSTREAM_ERROR, "status": 404, "usage_source": UsageSource.NONE, "cost": 0}
    metrics.observe(make("first", **failed), TEAM)
    before = series(metrics)

    for number in range(50_000):
        metrics.observe(make(f"made-up-{number}", **failed), TEAM)

    assert series(metrics) == before
    found = value(metrics, "meter_requests_total", team=TEAM, model=OTHER, outcome="upstream_error")
    assert found == 50_001


def test_an_upstream_that_knows_every_name_makes_few_series() -> None:
    """Where every name is answered, the first two hundred are named, the rest is `other`."""
    metrics = Metrics()

    for number in range(2000):
        metrics.observe(make(f"made-up-{number}"), TEAM)

    models = {
        sample.labels["model"]: sample.value
        for sample in samples(metrics)
        if sample.name == "meter_requests_total"
    }
    assert len(models) == MODELS_NAMED_MAX + 1 == 201
    assert models[OTHER] == 2000 - MODELS_NAMED_MAX
    assert models["made-up-199"] == 1


def test_long_names_make_a_small_page_too() -> None:
    """However long the names are that an upstream answers to, the page has less than 200 KB."""
    metrics = Metrics()

    for number in range(1000):
        name = f"{number}-".ljust(256, "x")
        metrics.observe(make(name, cost=1, upstream_cost=1), TEAM)
        metrics.observe(make(name, cost=None), TEAM)

    page = metrics.render()
    assert len(page) < 200_000
    assert page.count(b"meter_requests_total{") == CHARACTERS_MAX // 256 + 1


def test_refusals_are_counted_by_reason() -> None:
    """A refusal counts under the code of its error."""
    metrics = Metrics()

    for reason in ("invalid_api_key", "invalid_api_key", "not_found"):
        metrics.refuse(reason)

    assert value(metrics, "meter_refusals_total", reason="invalid_api_key") == 2
    assert value(metrics, "meter_refusals_total", reason="not_found") == 1


def test_anomalies_are_counted_by_name() -> None:
    """Odd usage is counted by what was odd."""
    metrics = Metrics()

    metrics.observe(make(anomalies=("total_mismatch", "string_tokens")), TEAM)

    assert value(metrics, "meter_usage_anomalies_total", anomaly="total_mismatch") == 1
    assert value(metrics, "meter_usage_anomalies_total", anomaly="string_tokens") == 1


def test_a_gauge_is_read_when_it_is_asked_for() -> None:
    """A gauge shows the number of the moment."""
    metrics = Metrics()
    inflight = [1.0]
    metrics.gauge("meter_inflight_requests", "Upstream attempts under way.", inflight.pop)

    assert value(metrics, "meter_inflight_requests") == 1


def test_the_ledgers_figures_are_shown() -> None:
    """What the ledger holds of each team is on the page, and how old that is."""
    metrics, seconds = Metrics(), [0.0]
    figures = LedgerFigures(lambda: seconds[0])
    metrics.show(figures)
    sums = Sums(requests=7, errors=2, prompt_tokens=10, cached_tokens=4, cost=1_250_000_000_000)
    sums.unpriced_requests, sums.estimated_requests, sums.estimated_tokens = 3, 1, 5

    figures.tell({TEAM: sums}, [])
    seconds[0] = 4.0

    assert value(metrics, "meter_ledger_requests", team=TEAM) == 7
    assert value(metrics, "meter_ledger_errors", team=TEAM) == 2
    assert value(metrics, "meter_ledger_cost_usd", team=TEAM) == 1.25
    assert value(metrics, "meter_ledger_tokens", team=TEAM, kind="prompt") == 10
    assert value(metrics, "meter_ledger_tokens", team=TEAM, kind="cached") == 4
    assert value(metrics, "meter_ledger_unpriced_requests", team=TEAM) == 3
    assert value(metrics, "meter_ledger_estimated_requests", team=TEAM) == 1
    assert value(metrics, "meter_ledger_estimated_tokens", team=TEAM) == 5
    assert value(metrics, "meter_ledger_age_seconds") == 4


@pytest.mark.parametrize(
    ("limit", "spent", "left"), [(100, 0, 1.0), (100, 25, 0.75), (100, 150, -0.5), (0, 5, 0.0)]
)
def test_what_is_left_of_a_budget_is_shown(limit: int, spent: int, left: float) -> None:
    """A budget's rest is a part of its limit; two budgets of one name are two series."""
    metrics = Metrics()
    figures = LedgerFigures(lambda: 0.0)
    metrics.show(figures)
    budgets = [
        Budget(
            id=budget_id,
            owner_kind=OwnerKind.TEAM,
            owner_id="t",
            owner=TEAM,
            measure=Measure.COST,
            period="month",
            limit=limit,
            enforcement=Enforcement.STANDARD,
        )
        for budget_id in ("one", "two")
    ]
    start = datetime(2026, 11, 1, tzinfo=UTC)

    figures.tell(
        {}, [Standing(budget=each, start=start, end=None, spent=spent, reserved=9) for each in budgets]
    )

    for budget_id in ("one", "two"):
        name = f"{budget_id} team 'search' (cost a month)"
        assert value(metrics, "meter_budget_remaining_ratio", budget=name) == left


def test_the_version_that_runs_is_shown() -> None:
    """A page of metrics says which version counted."""
    assert value(Metrics(), "meter_build_info", version=__version__) == 1


@pytest.mark.parametrize("team", ['a "quoted" team', "back\\slash", "☃", "a{b}c", "=1+1"])
def test_any_name_renders_and_reads(team: str) -> None:
    """Whatever a team is called, Prometheus reads the page and finds the name as it is."""
    metrics = Metrics()

    metrics.observe(make('m"\\'), team)

    assert value(metrics, "meter_requests_total", team=team, model='m"\\', outcome="ok") == 1


def test_two_processes_count_apart() -> None:
    """Each instance has a registry of its own, from zero on."""
    one, other = Metrics(), Metrics()

    one.observe(make(), TEAM)

    assert value(one, "meter_requests_total", team=TEAM, model="m", outcome="ok") == 1
    assert value(other, "meter_requests_total", team=TEAM, model="m", outcome="ok") is None


def test_the_content_type_is_prometheus_own() -> None:
    """The page is announced as Prometheus' text."""
    assert CONTENT_TYPE.startswith("text/plain; version=")


# A process that counts with others: it does what it is told, a line at a time, and says when it has.
COUNTING = """
import asyncio, contextlib, sys
from meter.core.events import Outcome, UsageSource
from meter.metrics import Metrics, count_as
from tests.metrics.test_instruments import TEAM, make

def refresh():
    with contextlib.suppress(TimeoutError):
        asyncio.run(asyncio.wait_for(metrics.keep_fresh(), 0.01))

count_as(sys.argv[1])
metrics = Metrics()
print("done", flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""
# What makes a series of every metric.
EVENTS = """
make(ttfb_ms=120, cost=1_500_000_000_000)
make(cost=None, outcome=Outcome.INTERRUPTED, usage_source=UsageSource.ESTIMATED, status=None)
make("made-up", outcome=Outcome.UPSTREAM_ERROR, status=404, anomalies=("total_mismatch",))
"""


class Counting:
    """A process that counts in a directory, under a name."""

    def __init__(self, directory: Path, name: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", COUNTING, name],
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(directory)},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def do(self, line: str) -> str:
        """Have a line run, and return what it prints."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self._answer()

    def page(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Return the values of all series."""
        page = self.do("print(metrics.render().decode())")
        return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in read(page)}

    def total(self, name: str) -> float:
        """Add up the series of a metric."""
        return sum(found for (series_name, _), found in self.page().items() if series_name == name)

    def close(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.communicate()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        lines: list[str] = []
        for line in self.process.stdout:
            if line == "done\n":
                return "".join(lines)
            lines.append(line)
        raise AssertionError("the process has ended")


Count = Callable[[str], Counting]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Make a directory to count in."""
    share(tmp_path / "metrics")
    return tmp_path / "metrics"


@pytest.fixture
def count(directory: Path) -> Iterator[Count]:
    """Start processes that count together."""
    with contextlib.ExitStack() as stack:
        yield lambda name: stack.enter_context(contextlib.closing(Counting(directory, name)))


def test_processes_count_together(count: Count) -> None:
    """Whichever process is asked shows what all have counted, as if it had been one, and none by itself."""
    alone = Metrics()
    several = [count("data-0"), count("data-1"), count("control")]
    for event in EVENTS.strip().splitlines():
        alone.observe(eval(event), TEAM)  # noqa: S307 (written above)
        several[0].do(f"metrics.observe({event}, TEAM)")
        alone.observe(eval(event), TEAM)  # noqa: S307 (written above)
        several[1].do(f"metrics.observe({event}, TEAM)")
    alone.refuse("not_found")
    several[1].do("metrics.refuse('not_found')")

    expected = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples(alone)}
    assert several[0].page() == several[1].page() == several[2].page() == expected


def test_what_a_dead_process_counted_stays(directory: Path, count: Count) -> None:
    """A counter goes on from where a killed process left it, under the same name and in the same files."""
    control, first = count("control"), count("data-0")
    first.do("for _ in range(5): metrics.observe(make(), TEAM)")
    first.close()
    files = set(directory.iterdir())

    forget(directory, "data-0")
    assert control.total("meter_requests_total") == 5
    second = count("data-0")
    assert control.total("meter_requests_total") == 5
    second.do("metrics.observe(make(), TEAM)")

    assert control.total("meter_requests_total") == 6
    assert set(directory.iterdir()) == files


@pytest.mark.parametrize(("across", "both"), [("sum", 7.0), ("max", 4.0)])
def test_a_gauge_is_of_who_lives(directory: Path, count: Count, across: str, both: float) -> None:
    """A gauge shows the sum or the largest of what the living processes last wrote down."""
    control, one, other = count("control"), count("data-0"), count("data-1")
    for process, number in ((control, 0), (one, 3), (other, 4)):
        process.do(f"metrics.gauge('meter_gauge', 'A gauge.', lambda: {number}, across='{across}')")
    for process in (one, other):
        process.do("refresh()")

    assert control.total("meter_gauge") == both
    other.close()
    forget(directory, "data-1")
    assert control.total("meter_gauge") == 3
    one.close()
    forget(directory, "data-0")
    assert control.total("meter_gauge") == 0


def test_processes_name_the_same_models(count: Count) -> None:
    """All processes together name the first so many models; a name that was cut off hurts only the next."""
    one, other = count("data-0"), count("data-1")
    one.do("for n in range(150): metrics.observe(make(f'a{n}'), TEAM)")
    other.do("open(metrics._names._path, 'ab').write(b'\"cut')")
    other.do("for n in range(150): metrics.observe(make(f'b{n}'), TEAM)")
    one.do("for n in range(150): metrics.observe(make(f'b{n}'), TEAM)")
    one.do("for n in range(150): metrics.observe(make(f'c{n}'), TEAM)")

    found = {
        dict(labels)["model"]: number
        for (name, labels), number in other.page().items()
        if name == "meter_requests_total"
    }
    # The cut name spoiled the one behind it.
    named = {*(f"a{n}" for n in range(150)), *(f"b{n}" for n in range(1, 51)), OTHER}
    assert found.keys() == named
    assert len(named) == MODELS_NAMED_MAX + 1
    assert sum(found.values()) == 600
    assert found["b1"] == 2
    one.close()
    again = count("data-0")
    again.do("metrics.observe(make('new'), TEAM)")
    assert again.total("meter_requests_total") == 601
    assert {
        dict(labels)["model"] for (name, labels) in again.page() if name == "meter_requests_total"
    } == named


def test_a_file_that_is_just_being_made_hinders_nobody(directory: Path, count: Count) -> None:
    """A page is whole while another process starts, whose files are empty for a moment."""
    control = count("control")
    (directory / "counter_data-0.db").touch()

    assert control.total("meter_build_info") == 1


def test_the_shared_directory_starts_empty(tmp_path: Path) -> None:
    """What an earlier server counted is gone at a start, and nobody else can read what this one counts."""
    share(tmp_path / "metrics")
    (tmp_path / "metrics" / "counter_data-0.db").touch()

    environment = share(tmp_path / "metrics")

    assert environment == {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}
    assert list((tmp_path / "metrics").iterdir()) == []
    assert stat.S_IMODE((tmp_path / "metrics").stat().st_mode) == 0o700
