"""PostgreSQL's arrays, as it reads them; the driver's own way, in Python, takes ten times as long.

Apart from what connects to it, so that a server with SQLite does not load the driver.
"""

from collections.abc import Sequence


def numbers_array(values: Sequence[int]) -> str:
    """Write an array of whole numbers."""
    return f"{{{','.join(map(str, values))}}}"


def texts_array(values: Sequence[object]) -> str:
    """Write an array of texts, or of what is written as one."""
    quoted = [str(value).replace("\\", "\\\\").replace('"', '\\"') for value in values]
    return f"""{{"{'","'.join(quoted)}"}}""" if quoted else "{}"
