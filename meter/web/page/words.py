"""How the page writes numbers, periods and names."""

from collections.abc import Sequence
from datetime import datetime, tzinfo

from meter.core.money import Picodollars, format_usd
from meter.core.period import Period, Unit
from meter.core.rollup import Sums
from meter.core.series import Serie, size

MEASURES = {"cost": "Spend", "tokens": "Tokens", "requests": "Requests"}
OUTCOMES = {
    "ok": "ok",
    "client_closed": "the client left",
    "upstream_closed": "the upstream broke off",
    "upstream_timeout": "the upstream fell silent",
    "cut": "cut by a budget",
    "upstream_error": "refused by the upstream",
    "unreachable": "not reached",
    "interrupted": "interrupted",
}
_STEPS = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k"))
_SMALL = 0.01


def amount(sums: Sums, measure: str) -> str:
    """Write how much there is of a measure, to the last digit."""
    value = size(sums, measure)
    return f"{usd(value)} USD" if measure == "cost" else f"{value:,} {measure}"


def usd(value: int) -> str:
    """Write an amount in picodollars as an exact decimal string."""
    return format_usd(Picodollars(value))


def short_amount(value: float, measure: str) -> str:
    """Write a mark of a chart's scale."""
    if measure == "cost" and value and abs(value) < _SMALL:
        return f"${value:.3g}"
    for step, letter in _STEPS:
        if abs(value) >= step:
            return f"{_money(measure)}{value / step:.3g}{letter}"
    return f"{_money(measure)}{value:.3g}"


def named(serie: Serie) -> str:
    """Name a part of the whole."""
    return serie.name if serie.merged == 1 else f"{serie.merged} others"


def period_name(period: Period, unit: Unit, among: Sequence[Period]) -> str:
    """Name a bar, as short as can be told apart from the others."""
    if unit == "hour":
        one_day = among[0].label[:10] == among[-1].label[:10]
        at = datetime.fromisoformat(period.label)
        return f"{at:%H:%M}" if one_day else f"{at.day} {at:%b %H:%M}"
    if unit == "month":
        return f"{datetime.fromisoformat(f'{period.label}-01'):%b %Y}"
    first = datetime.fromisoformat(period.label)
    return f"{first.day} {first:%b}"


def day(local: datetime) -> str:
    """Write the day of a local time."""
    return f"{local.day} {local:%b %Y}"


def day_of(instant: datetime, tz: tzinfo) -> str:
    """Write the day of an instant."""
    return day(instant.astimezone(tz))


def time_of(instant: datetime, tz: tzinfo) -> str:
    """Write an instant to the second; the page says elsewhere in which zone."""
    return f"{instant.astimezone(tz):%Y-%m-%d %H:%M:%S}"


def share(part: int, whole: int) -> str:
    """Write a part as a percentage; what is little is not nothing."""
    if not whole or not part:
        return "0 %"
    percent = 100 * part / whole
    return f"{percent:.1f} %" if percent >= 0.1 else "< 0.1 %"  # noqa: PLR2004 (one decimal)


def change(now: int, was: int) -> dict[str, str]:
    """Say how an amount in picodollars has changed; the percentage is empty where there was nothing."""
    percent = f"{100 * (now - was) / was:+.1f} %".replace("-", "\u2212") if was > 0 else ""
    direction = "same" if now == was else "more" if now > was else "less"
    return {"usd": usd(now - was), "percent": percent, "direction": direction}


def split_usd(text: str) -> tuple[str, str]:
    """Split an exact amount after its cents, to show the rest smaller: the two together are the amount."""
    at = text.index(".") + 3
    whole, cents = text[:at].split(".")
    sign, digits = ("\u2212", whole[1:]) if whole.startswith("-") else ("", whole)
    return f"{sign}{int(digits):,}.{cents}", text[at:].rstrip("0")


def about_usd(text: str) -> str:
    """Write a projected amount, of which nobody knows more than the cents."""
    head, tail = split_usd(text)
    return head if head.strip("0.") else f"{head}{tail}"


def _money(measure: str) -> str:
    return "$" if measure == "cost" else ""
