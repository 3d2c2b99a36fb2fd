"""What the README says exists, and what exists is in the README."""

import re
from pathlib import Path

import pytest

from meter.metrics import Metrics
from meter.settings import SETTINGS
from tests.server import Meter

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """Return the rows of the table below a heading."""
    section = README.split(f"## {heading}\n", 1)[1].split("\n## ")[0]
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
    """The README's table of metrics names each metric that a server exports, and no other."""
    documented = {row[0].strip("`") for row in table("Metrics")}

    with meter.control as control:
        page = control.get("/metrics").text
    exported = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")}

    assert documented == {name for name in exported if not name.endswith("_created")}


def test_metrics_are_documented_with_their_labels() -> None:
    """The labels that the README gives are those of the instruments."""
    documented = {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[1])) for row in table("Metrics")}
    collectors = Metrics().registry.collect()

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
