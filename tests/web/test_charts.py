"""Charts: SVG that the page's policy lets stand, whatever there is to draw."""

import re
from datetime import UTC, datetime

import pytest

from meter.core.period import Unit, periods
from meter.core.rollup import Sums
from meter.core.series import MEASURES, Serie, Series, total
from meter.web.page.charts import LABELS_MAX, chart

SINCE = datetime(2026, 11, 1, tzinfo=UTC)
HOSTILE = "</title><script>alert(1)</script>"


def drawn(
    *lines: tuple[int, ...], unit: Unit = "day", measure: str = "cost", name: str = "team"
) -> tuple[str, list[tuple[float, float]]]:
    """Draw series of costs; returns the SVG, and each bar's upper edge and height."""
    count = len(lines[0]) if lines else 3
    days = tuple(periods(SINCE, SINCE.replace(day=1 + count), "day", UTC))
    series = [
        Serie(name=f"{name} {at}", id="", merged=1, sums=sums, total=total(sums))
        for at, line in enumerate(lines)
        for sums in [tuple(Sums(cost // 10**12, prompt_tokens=cost, cost=cost) for cost in line)]
    ]
    by_period = tuple(total(serie.sums[at] for serie in series) for at in range(count))
    found = Series(periods=days, series=tuple(series), by_period=by_period)
    text = str(chart(found, unit, measure, "Spend by day"))
    bars = re.findall(r'<rect x="[^"]*" y="([^"]*)"[^>]* height="([^"]*)" class="rect', text)
    return text, [(float(top), float(height)) for top, height in bars]


def test_bars_are_as_high_as_their_numbers() -> None:
    """Twice as much is twice as high, and what is stacked stands on what is below it."""
    _, ((first_top, first), (_, second), (upper_top, upper), _) = drawn((1, 2), (3, 0))

    assert second == pytest.approx(2 * first)
    assert upper == pytest.approx(3 * first)
    assert upper_top + upper == pytest.approx(first_top)


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ((0, 0, 0),),
        ((5,),),
        ((-(10**12), 10**12, 0), (10**12, -(10**13), 1)),
        ((9 * 10**30, 1),),
        tuple((number,) * 20 for number in range(8)),
    ],
)
@pytest.mark.parametrize("measure", MEASURES)
def test_everything_can_be_drawn(lines: tuple[tuple[int, ...], ...], measure: str) -> None:
    """Nothing at all, corrections below zero, and more money than there is; all of it within the policy."""
    text, bars = drawn(*lines, measure=measure)

    assert len(bars) == sum(map(len, lines))
    assert not re.search(r"<style|<script|\sstyle=|\sid=|<!--", text)
    assert text.startswith("<svg")
    assert 'role="img"' in text
    assert 'aria-label="Spend by day"' in text


def test_a_bar_says_what_it_is_to_the_last_digit() -> None:
    """Whoever rests on it reads the exact amount, and a name stays a name."""
    text, _ = drawn((1, 10**12 + 1), name=HOSTILE)

    assert (
        "<title>2 Nov, &lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt; 0: 1.000000000001 USD</title>"
        in text
    )
    assert "<script" not in text


def test_there_are_a_few_labels_and_the_last_one() -> None:
    """However many bars there are."""
    text, _ = drawn((1,) * 29)
    axis = text[text.index('class="axis x"') : text.index('class="series')]
    labels = re.findall(r">([^<]+)</text>", axis)

    assert len(labels) <= LABELS_MAX
    assert labels[-1] == "29 Nov"
