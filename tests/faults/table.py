"""The rows that experiments return, and how they are shown."""

from collections.abc import Iterable
from dataclasses import dataclass

VIOLATIONS_SHOWN_MAX = 6


@dataclass(frozen=True)
class Row:
    """What came of an experiment; each violation is a sentence."""

    experiment: str
    database: str
    runs: int
    violations: tuple[str, ...] = ()
    skipped: str = ""
    notes: tuple[str, ...] = ()
    """What was measured on the way."""
    seconds: float = 0.0


def lines(rows: Iterable[Row]) -> list[str]:
    """Write the table, and below it what was violated."""
    found = list(rows)
    width = max((len(row.experiment) for row in found), default=0)
    table = [f"{'experiment':{width}}  {'database':10}  {'runs':>5}  {'violations':>10}  {'seconds':>7}"]
    for row in found:
        result = "skipped" if row.skipped else str(len(row.violations))
        numbers = f"{row.runs:5}  {result:>10}  {row.seconds:7.1f}"
        remark = "; ".join([*([row.skipped] if row.skipped else []), *row.notes])
        table.append(f"{row.experiment:{width}}  {row.database:10}  {numbers}  {remark}".rstrip())
    for row in found:
        shown = row.violations[:VIOLATIONS_SHOWN_MAX]
        table += [f"{row.experiment} ({row.database}): {violation}" for violation in shown]
    return table
