"""`meter reconcile`."""

import csv
import sys
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, BinaryIO, NamedTuple

import click
import msgspec
from rich import box
from rich.table import Table

from meter.app.rating import catalogs
from meter.cli import opening
from meter.cli.bill_file import FILE_BYTES_MAX, parse_aliases, read_bill
from meter.core.cells import as_text, printable
from meter.core.errors import MeterError
from meter.core.findings import COLUMNS, Row, as_json, columns, cost_usd, model, rows, tally, usd
from meter.core.period import parse_instant, period_of, zone
from meter.core.prices import PriceBook
from meter.core.reconcile import (
    Bill,
    Case,
    Difference,
    Finding,
    TierCosts,
    Total,
    costs_by_tier,
    in_order,
    judge,
    needs_tier_costs,
    pair,
    parse_tolerance,
    total,
)
from meter.core.reports import Question
from meter.settings import Settings
from meter.store import prices
from meter.store import reconcile as store
from meter.store.database import Database
from meter.store.failures import DatabaseUnavailable

# Nothing was compared; 1 says that what was compared differs.
EXIT_UNUSABLE = 2


class _Compared(NamedTuple):
    rows: list[Row]
    total: Total
    tolerance: Fraction

    @property
    def within(self) -> bool:
        return self.total.within(self.tolerance)


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--upstream", metavar="NAME", help="The upstream that the file is from.  [default: all]")
@click.option("--tz", default="UTC", show_default=True, help="Time zone of the file's days.")
@click.option(
    "--tolerance",
    default="0.01",
    show_default=True,
    metavar="PART",
    help="What may differ in all, as a part of their total (0.01 is one percent).",
)
@click.option(
    "--alias", "aliases", multiple=True, metavar="THEIRS=OURS", help="Another name of a model; repeatable."
)
@click.option(
    "--format", "shape", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True
)
def reconcile(
    file: BinaryIO, upstream: str | None, tz: str, tolerance: str, aliases: tuple[str, ...], shape: str
) -> None:
    """Compare a provider's invoice or usage export with the ledger.

    FILE is CSV ("-" reads standard input) with the columns day, model, prompt_tokens, completion_tokens,
    cost_usd, and as far as known cached_tokens, cache_write_tokens, reasoning_tokens, requests, service_tier.
    Exits with 0 within the tolerance, 1 above it, 2 where nothing could be compared.
    """
    try:
        part = parse_tolerance(tolerance)
        bill, ignored = read_bill(file.read(FILE_BYTES_MAX + 1), parse_aliases(aliases))
        if ignored:
            _note(f"ignored columns: {', '.join(name or '(without a name)' for name in ignored)}")
        configured = opening.settings()
        with opening.existing_database(configured) as database:
            found = _compare(database, configured, bill, _question(bill, tz), upstream)
    except (MeterError, DatabaseUnavailable, ValueError) as fault:
        click.echo(f"meter: {fault}", err=True)
        sys.exit(EXIT_UNUSABLE)
    compared = _Compared(rows(found), total(found), part)
    {"table": _print_table, "csv": _print_csv, "json": _print_json}[shape](compared)
    sys.exit(0 if compared.within else 1)


def _question(bill: Bill, tz: str) -> Question:
    """Ask about the days of the file, from the first to the last."""
    days = sorted(line.day for line in bill.lines)
    found = zone(tz)
    first, last = (parse_instant(day, found) for day in (days[0], days[-1]))
    return Question(by=(), since=first, until=period_of(last, "day", found).end, tz=found)


def _compare(
    database: Database, configured: Settings, bill: Bill, question: Question, upstream: str | None
) -> list[Finding]:
    ours, upstreams = store.recorded(database, question, upstream=upstream, by_tier=bill.names_tiers)
    _check_upstream(upstream, upstreams, [entry.name for entry in configured.upstreams])
    cases = pair(bill, ours)
    book: _Book | None = None
    findings: list[Finding] = []
    for case in cases:
        costs: TierCosts | None = None
        if needs_tier_costs(case):
            book = book or _book(database, configured)
            costs = _tier_costs(database, book, case, question, upstream)
        findings.append(judge(case, costs))
    return list(in_order(findings))


def _check_upstream(upstream: str | None, found: set[str], configured: Sequence[str]) -> None:
    if upstream is None and len(found) > 1:
        _note(
            f"the ledger has events of {', '.join(sorted(found))} in these days: if the file is from one of "
            "them, name it with --upstream"
        )
    if upstream is not None and upstream not in {*found, *configured}:
        known = ", ".join(sorted({*found, *configured})) or "none"
        raise ValueError(f"no upstream {upstream!r}; there is: {known}")


class _Book(NamedTuple):
    book: PriceBook
    tiers: frozenset[str]


def _book(database: Database, configured: Settings) -> _Book:
    versions = prices.load(database)
    tiers = frozenset(version.service_tier for version in versions)
    return _Book(PriceBook(versions, catalogs(configured)), tiers)


def _tier_costs(
    database: Database, book: _Book, case: Case, question: Question, upstream: str | None
) -> TierCosts:
    day = period_of(parse_instant(case.day, question.tz), "day", question.tz)
    events = store.attempts(database, day.start, day.end, models=case.names.ours, upstream=upstream)
    return costs_by_tier(events, book.book, sorted(book.tiers))


def _note(sentence: str) -> None:
    click.echo(f"meter: note: {sentence}", err=True)


def _print_json(compared: _Compared) -> None:
    document = as_json(compared.rows, compared.total, within_tolerance=compared.within)
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))


def _print_csv(compared: _Compared) -> None:
    writer = csv.writer(sys.stdout)
    writer.writerow(COLUMNS)
    for row in compared.rows:
        writer.writerow([_cell(value) for value in columns(row).values()])
    click.echo(_verdict(compared), err=True)


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return as_text(" + ".join(value))
    # Amounts are written as text too, and must stay numbers.
    return value if not isinstance(value, str) or _is_amount(value) else as_text(value)


def _is_amount(value: str) -> bool:
    return value.lstrip("-").replace(".", "", 1).isdigit()


def _print_table(compared: _Compared) -> None:
    differing = [row for row in compared.rows if row.finding.difference is not Difference.OK]
    console = opening.console()
    if differing:
        table = Table(box=box.SIMPLE_HEAD)
        for heading in ("day", "model", "class"):
            table.add_column(heading, overflow="fold")
        for heading in ("their tokens", "our tokens", "their USD", "our USD", "difference USD"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("what to do", min_width=30)
        for row in differing:
            table.add_row(*(printable(cell) for cell in _table_cells(row)))
        console.print(table)
    counts = ", ".join(f"{count} {name}" for name, count in tally(compared.rows).items())
    click.echo(f"Days and models: {counts or 'none'}.")
    click.echo(_verdict(compared))


def _table_cells(row: Row) -> Iterable[str]:
    case = row.finding.case
    for_sides = [
        ["-" if side is None else f"{side.total_tokens:,}" for side in (case.theirs, case.ours)],
        ["-" if case.theirs is None else usd(case.theirs.cost), _our_cost(case)],
    ]
    yield from (case.day, model(case), row.finding.difference.value)
    yield from (*for_sides[0], *for_sides[1], usd(case.difference), row.advice)


def _our_cost(case: Case) -> str:
    if case.ours is None:
        return "-"
    return cost_usd(case.ours) or "unpriced"


def _verdict(compared: _Compared) -> str:
    found = compared.total
    percent = f"{float(Fraction(found.differing, abs(found.theirs))):.3%}" if found.theirs else "all"
    where = "within" if compared.within else "above"
    return (
        f"They bill {usd(found.theirs)} USD, the ledger has {usd(found.ours)} USD; what differs adds up to "
        f"{usd(found.differing)} USD, {percent} of theirs: {where} the tolerance of "
        f"{float(compared.tolerance):.10g}."
    )
