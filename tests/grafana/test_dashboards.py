"""The dashboards are what their Python and SQL say, and everything in them is explained."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from grafana.build import FOLDER, documents
from meter.settings import SETTINGS

ROOT = Path(__file__).parent.parent.parent
BOARDS = sorted(documents())


def panels(name: str) -> list[dict[str, Any]]:
    """Return the panels of a dashboard, without its rows."""
    return [panel for panel in json.loads(documents()[name])["panels"] if panel["type"] != "row"]


def test_the_files_are_what_is_built() -> None:
    """The committed dashboards are those that `make dashboards` writes, and there are no others."""
    written = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}

    assert written == documents()


@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_is_explained(name: str) -> None:
    """Each panel has a title of its own, a description, a unit and queries, and its series are named."""
    found = panels(name)

    assert len({panel["title"] for panel in found}) == len(found) >= 10
    for panel in found:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            is_series = panel["type"] == "timeseries" and "expr" in target
            assert not is_series or target["legendFormat"], panel["title"]


@pytest.mark.parametrize(
    ("name", "variables"),
    [("spend.json", ["team", "model", "timezone"]), ("gateway.json", ["instance", "team", "model"])],
)
def test_the_dashboards_have_their_variables(name: str, variables: list[str]) -> None:
    """Everything that the queries refer to is a variable of the dashboard, and each is used."""
    document = json.loads(documents()[name])
    queries = json.dumps([panel["targets"] for panel in panels(name)])
    used = set(re.findall(r"\$\{?(\w+)", queries)) - {
        "__rate_interval",
        "__timeFrom",
        "__timeTo",
        "__timeFilter",
    }

    assert [variable["name"] for variable in document["templating"]["list"]] == variables
    assert used == set(variables)


def test_the_sources_are_provisioned() -> None:
    """The sources that panels read from are those that the provisioning makes."""
    provisioned = (ROOT / "grafana" / "provisioning" / "datasources" / "meter.yaml").read_text(
        encoding="utf-8"
    )

    used = {json.dumps(panel["datasource"], sort_keys=True) for name in BOARDS for panel in panels(name)}

    made = zip(
        re.findall(r"^    type: (\S+)", provisioned, re.MULTILINE),
        re.findall(r"^    uid: (\S+)", provisioned, re.MULTILINE),
        strict=True,
    )
    assert used == {json.dumps({"type": kind, "uid": uid}, sort_keys=True) for kind, uid in made}
    # Grafana's environment and meter's may be one.
    settings = {f"METER_{setting.name.upper()}" for setting in SETTINGS}
    variables = set(re.findall(r"METER_\w+", provisioned))
    assert variables
    assert not variables & settings
