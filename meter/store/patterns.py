"""Patterns in SQL: `*` stands for anything, `?` for one character, and everything else for itself."""

from typing import Any

import sqlalchemy as sa

_GLOB = str.maketrans({"[": "[[]"})
_LIKE = str.maketrans({"*": "%", "?": "_", "%": r"\%", "_": r"\_", "\\": r"\\"})


def like(dialect: sa.Dialect, column: sa.ColumnElement[Any], pattern: str) -> sa.ColumnElement[bool]:
    """Say whether a text has a pattern; capital letters are others than small ones."""
    if dialect.name == "sqlite":
        # SQLite's LIKE takes capital letters for small ones.
        return column.bool_op("GLOB")(pattern.translate(_GLOB))
    return column.like(pattern.translate(_LIKE), escape="\\")
