"""Charts as SVG within the page: drawn on the server, coloured by the page's own styles.

Floats appear here and nowhere else, since a bar's height is no amount: what is read is written out exactly.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from markupsafe import Markup
from pygal import PluginImportFixer
from pygal.config import Config
from pygal.graph.stackedbar import StackedBar

from meter.core.money import PICODOLLARS_PER_USD
from meter.core.period import Unit
from meter.core.series import Series, size
from meter.web.page.words import amount, named, period_name, short_amount

# In units of the drawing; it is as wide as the page lets it be.
WIDTH, HEIGHT = 760, 310
LABEL_SIZE = 11
LABELS_MAX = 7

# pygal adds a finder of maps to Python's imports, of a kind that Python 3.11 warns of whenever one fails.
# There are no maps here.
for _finder in [each for each in sys.meta_path if isinstance(each, PluginImportFixer)]:
    sys.meta_path.remove(_finder)


class _Options(Config):  # type: ignore[misc]
    """No styles and no scripts of the library's: the page's policy forbids them within it."""

    css = ()
    js = ()


class _Bars(StackedBar):  # type: ignore[misc]
    """Stacked bars that say what they are to a pointer that rests on them, without a script."""

    _series_margin = 0.12

    def __init__(self, told: Callable[[int, int], str], **options: Any) -> None:
        super().__init__(_Options(), **options)
        self._told = told

    def _tooltip_and_print_values(self, _node: Any, serie: Any, bar: Any, place: int, *_rest: Any) -> None:
        self.svg.node(bar, "title").text = self._told(serie.index, place)


def chart(found: Series, unit: Unit, measure: str, label: str) -> Markup:
    """Draw series as stacked bars, to be put into the page."""
    names = [period_name(period, unit, found.periods) for period in found.periods]

    def told(serie: int, place: int) -> str:
        one = found.series[serie]
        return f"{names[place]}, {named(one)}: {amount(one.sums[place], measure)}"

    drawing = _Bars(
        told,
        width=WIDTH,
        height=HEIGHT,
        margin=2,
        margin_left=30,
        margin_bottom=6,
        show_legend=False,
        show_x_guides=False,
        x_labels=names,
        x_labels_major=_some(names),
        show_minor_x_labels=False,
        truncate_label=-1,
        y_labels_major_count=2,
        max_scale=6,
        min_scale=3,
        value_formatter=lambda value: short_amount(value, measure),
        disable_xml_declaration=True,
        classes=("chart",),
        no_prefix=True,
    )
    for one in found.series:
        drawing.add("", [_height(size(sums, measure), measure) for sums in one.sums])
    drawing.add_xml_filter(lambda root: _cleaned(root, label))
    # What others have named is in it as text, escaped by the XML that it was written as.
    return Markup(drawing.render(is_unicode=True))  # noqa: S704 (see above)


def _height(value: int, measure: str) -> float:
    return value / PICODOLLARS_PER_USD if measure == "cost" else float(value)


def _some(names: Sequence[str]) -> list[str]:
    """Choose the labels that are shown, the last one among them."""
    step = -(-len(names) // LABELS_MAX)
    return list(names[::-1][::step])


def _cleaned(root: Element, label: str) -> Element:
    """Take out what the page's policy would not run, and say what the drawing is."""
    for child in list(root):
        # Comments have a function for a tag.
        if child.tag != "g":
            root.remove(child)
    for parent in list(root.iter()):
        for child in list(parent):
            if "style" in child.attrib:
                parent.remove(child)
    del root.attrib["id"]
    root.set("role", "img")
    root.set("aria-label", label)
    return root
