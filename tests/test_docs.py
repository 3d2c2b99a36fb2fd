"""What the README says exists, and what exists is in the README."""

import re
from pathlib import Path

import pytest

from meter.core.rollup import Sums
from meter.metrics import LedgerFigures, Metrics
from meter.settings import SETTINGS
from tests.server import Meter

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MONITORING = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")


def table(heading: str, text: str = README) -> list[list[str]]:
    """Return the rows of the table below a heading."""
    section = text.split(f"## {heading}\n", 1)[1].split("\n## ", maxsplit=1)[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row] for row in rows]


def test_settings_are_documented() -> None:
    """The README's table of settings is the program's, default and meaning too."""
    documented = [tuple(row) for row in table("Settings")]

    assert documented == [
        (f"`METER_{setting.name.upper()}`", f"`{setting.default}`" if setting.default else "", setting.help)
        for setting in SETTINGS
    ]


def test_metrics_are_documented(meter: Meter) -> None:
    """The table of metrics names each metric that a server exports, with its type, and no other."""
    documented = {row[0].strip("`"): row[1] for row in table("Metrics", MONITORING)}

    with meter.control as control:
        page = control.get("/metrics").text
    lines = [line.split() for line in page.splitlines() if line.startswith("# TYPE")]

    assert documented == {line[2]: line[3] for line in lines}


def test_metrics_are_documented_with_their_labels() -> None:
    """The labels that the table gives are those of the instruments."""
    documented = {
        row[0].strip("`"): set(re.findall(r"`(\w+)`", row[2])) for row in table("Metrics", MONITORING)
    }
    figures = LedgerFigures(lambda: 0.0)
    figures.tell({"team": Sums()}, ())
    collectors = [*Metrics().registry.collect(), *figures.collect()]

    for family in collectors:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert labels <= documented[name]


@pytest.mark.parametrize(
    "path", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=lambda path: path.name
)
def test_links_lead_somewhere(path: Path) -> None:
    """Every relative link of the documentation names a file that exists."""
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_commands_of_the_readme_exist(meter: Meter) -> None:
    """Every meter command in the README's examples is one that `--help` knows."""
    commands = set(re.findall(r"^\$ (?:\.venv/bin/)?meter (\w+)", README, re.MULTILINE))

    listed = meter.run("--help").stdout

    assert commands
    for command in commands:
        assert re.search(rf"^  {command} ", listed, re.MULTILINE), command
