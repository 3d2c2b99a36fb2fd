"""What must never be written down, and every place where it could have been (I9)."""

from collections.abc import Iterable, Iterator
from contextlib import closing

import psycopg
from psycopg import sql

from tests.faults.script import CANARY_ANSWER, CANARY_CREDENTIAL, CANARY_PROMPT
from tests.faults.site import Site

# Of a partitioned table the partitions are no others; what belongs to the system is not ours.
TABLES = """
SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
"""


def secrets_kept(site: Site) -> list[str]:
    """Look for prompts, completions and keys, the provider's too, in all that is kept or shown."""
    site.searched = True
    secrets = [CANARY_PROMPT, CANARY_ANSWER, CANARY_CREDENTIAL, secret_of(site.key)]
    return [
        f"I9: {secret!r} is found in {place}"
        for place, raw in _places(site)
        for secret in found_in(raw, secrets)
    ]


def secret_of(key: str) -> str:
    """Return the part of a key that nobody else may know."""
    return key.split("_")[2]


def found_in(raw: bytes, secrets: Iterable[str]) -> list[str]:
    """Return which of the secrets are in these bytes."""
    return [secret for secret in secrets if secret.encode() in raw]


def not_told(raw: bytes, key: str, *, refused: bool) -> None:
    """Hold an answer against what clients must not be told; an error repeats nothing that was said."""
    secrets = [CANARY_PROMPT, CANARY_CREDENTIAL, *([CANARY_ANSWER] if refused else [])]
    secrets += [secret_of(key)] if key.count("_") > 1 else []
    found = found_in(raw, secrets)
    assert not found, f"I9: an answer has {', '.join(found)}: {raw[:200]!r}"


def _places(site: Site) -> Iterator[tuple[str, bytes]]:
    """Yield every place: files, with SQLite's and the logs, tables, what was printed, and metrics."""
    for path in site.data_dir.parent.rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes()
    if site.database_url is not None:
        yield from _tables(site.database_url)
    for meter in filter(None, [*site.dead, site.meter]):
        yield f"what process {meter.process.pid} printed", meter.printed()
    if site.meter is not None and site.meter.process.poll() is None:
        yield "/metrics", site.metrics().encode()


def _tables(url: str) -> Iterator[tuple[str, bytes]]:
    """Yield a copy of every table, in the form in which bytes are bytes."""
    with closing(psycopg.connect(url)) as connection:
        tables = [row[0] for row in connection.execute(TABLES.encode()).fetchall()]
        for table in tables:
            statement = sql.SQL("COPY (SELECT * FROM {}) TO STDOUT (FORMAT binary)").format(sql.SQL(table))
            with connection.cursor().copy(statement) as copied:
                yield f"table {table}", b"".join(map(bytes, copied))
