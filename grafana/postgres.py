"""Queries of PostgreSQL as panels have them; the SDK knows those of other databases only."""

from pathlib import Path

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import DataSourceRef

SOURCE = DataSourceRef(type_val="grafana-postgresql-datasource", uid="meter-postgres")

_FOLDER = Path(__file__).parent / "sql"


def sql(name: str) -> str:
    """Return the statement of a file of `sql/`, with the pieces that it names in double braces."""
    text = (_FOLDER / f"{name}.sql").read_text(encoding="utf-8")
    return text.replace("{{usage}}", (_FOLDER / "usage.sql").read_text(encoding="utf-8").rstrip())


class _Query(Dataquery):
    """A statement, and whether it returns a table or series."""

    def __init__(self, statement: str, shape: str) -> None:
        self._statement = statement
        self._shape = shape

    def to_json(self) -> dict[str, object]:
        """Return what Grafana keeps of it."""
        return {
            "datasource": SOURCE,
            "editorMode": "code",
            "format": self._shape,
            "rawQuery": True,
            "rawSql": self._statement,
            "refId": "A",
        }


class Query(Builder[Dataquery]):
    """Builds the query of a file of `sql/`."""

    def __init__(self, name: str, *, series: bool = False) -> None:
        self._query = _Query(sql(name), "time_series" if series else "table")

    def build(self) -> Dataquery:
        """Return the query."""
        return self._query
