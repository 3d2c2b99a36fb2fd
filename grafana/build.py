"""Writes the dashboards that Grafana is provisioned with: `python -m grafana.build`, or `make dashboards`."""

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana import gateway, spend

FOLDER = Path(__file__).parent / "dashboards"


def documents() -> dict[str, str]:
    """Return the documents by the names of their files."""
    boards = {"spend.json": spend.build(), "gateway.json": gateway.build()}
    return {
        name: json.dumps(board.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
        for name, board in boards.items()
    }


def main() -> None:
    """Write the files."""
    for name, document in documents().items():
        (FOLDER / name).write_text(document, encoding="utf-8")


if __name__ == "__main__":
    main()
