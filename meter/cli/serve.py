"""`meter serve`: the first start, what it shows, and the servers."""

import asyncio
import logging
import secrets
import sys
from pathlib import Path

import click
import msgspec
import uvloop

from meter import app
from meter.cli import opening
from meter.cli.db import bring_up_to_date
from meter.datadir import ADMIN_TOKEN_FILE, claim, prepare, read_or_make
from meter.settings import ConfigurationError, Settings
from meter.store import teams
from meter.store.database import Database

log = logging.getLogger(__name__)

FIRST_TEAM = "default"
FIRST_KEY = "first"

_NO_UPSTREAM = (
    "no upstream is configured. Set ROUTERHUB_API_KEY for RouterHub; or METER_UPSTREAM_URL, and "
    "METER_UPSTREAM_API_KEY where that server wants one; or [[upstreams]] in meter.toml; or try meter "
    "without a provider: meter serve --sample"
)


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="The configuration.  [default: meter.toml]")
@click.option("--host", help="Address of the data listener.")
@click.option("--port", help="Port of the data listener.")
@click.option("--admin-host", help="Address of the control listener.")
@click.option("--admin-port", help="Port of the control listener.")
@click.option("--sample", is_flag=True, help="Answer from a built-in sample provider; needs no account.")
def serve(config: Path | None, sample: bool, **options: str | None) -> None:  # noqa: FBT001 (click's flag)
    """Start the proxy and its control listener."""
    _set_up_logging()
    settings = _with_upstream(opening.settings(config, **options), sample=sample)
    prepare(settings.data_dir)
    claim(settings.data_dir)
    admin_token, made = _admin_token(settings)
    credentials = app.Credentials(pepper=opening.pepper(settings), admin_token=admin_token)
    with opening.database(settings) as database:
        bring_up_to_date(database)
        first_key = _first_start(database, credentials)
        notes = _Notes(settings, first_key, admin_token if made else None)
        with (
            app.listen(settings.host, settings.port) as data,
            app.listen(settings.admin_host, settings.admin_port) as control,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            notes.show(app.address(data), app.address(control))
            runner.run(_serve(settings, database, credentials, app.Listeners(data, control)))
        database.checkpoint()


async def _serve(
    settings: Settings, database: Database, credentials: app.Credentials, listeners: app.Listeners
) -> None:
    await app.serve(settings, database, credentials, listeners, app.stop_on_signals())


class _Notes:
    """What a start tells the person who started it."""

    def __init__(self, settings: Settings, first_key: str | None, new_admin_token: str | None) -> None:
        self._settings = settings
        self._first_key = first_key
        self._new_admin_token = new_admin_token

    def show(self, data_url: str, control_url: str) -> None:
        """Print the notes, once the addresses are known."""
        lines = [
            "",
            f"  data      {self._settings.data_dir}",
            f"  proxy     {data_url}/v1",
            f"  control   {control_url}   (admin API, /metrics)",
            f"  upstream  {', '.join(f'{entry.name} ({entry.url})' for entry in self._settings.upstreams)}",
        ]
        if app.SAMPLE in self._settings.upstreams:
            log.warning("answers are made up by the sample provider: no request leaves this process")
            lines += ["", "  SAMPLE PROVIDER: every answer is made up. Set ROUTERHUB_API_KEY for real ones."]
        if self._new_admin_token is not None:
            where = self._settings.data_dir / ADMIN_TOKEN_FILE
            lines += ["", f"  admin token, shown once (kept in {where}):", f"    {self._new_admin_token}"]
        if self._first_key is not None:
            lines += ["", f"  first key, of team {FIRST_TEAM}, shown once:", f"    {self._first_key}"]
        else:
            lines += ["", "  a key:  export METER_KEY=$(meter keys create --team NAME | head -1)"]
        click.echo("\n".join([*lines, "", "  try it:", self._curl(data_url), ""]))

    def _curl(self, data_url: str) -> str:
        body = '{"model":"anthropic/claude-sonnet-4","messages":[{"role":"user","content":"Hello!"}]}'
        key = self._first_key or "$METER_KEY"
        headers = f"-H 'Content-Type: application/json' -H \"Authorization: Bearer {key}\""
        return f"    curl -s {data_url}/v1/chat/completions {headers} -d '{body}'"


def _with_upstream(settings: Settings, *, sample: bool) -> Settings:
    if sample:
        return msgspec.structs.replace(settings, upstreams=(app.SAMPLE,))
    if not settings.upstreams:
        raise ConfigurationError([_NO_UPSTREAM])
    return settings


def _admin_token(settings: Settings) -> tuple[str, bool]:
    if settings.admin_token is not None:
        return settings.admin_token.reveal(), False
    return read_or_make(settings.data_dir / ADMIN_TOKEN_FILE, lambda: secrets.token_urlsafe(32))


def _first_start(database: Database, credentials: app.Credentials) -> str | None:
    """Make the first team and key where there is no team yet; returns the key's secret."""
    if teams.list_all(database):
        return None
    team = app.register_team(database, FIRST_TEAM)
    _, secret = app.issue_key(database, credentials.pepper, team.id, FIRST_KEY, None)
    return secret


def _set_up_logging() -> None:
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # They say at every request what the ledger says better, and httpx would say the upstream's URL.
    for name in ("httpx", "httpcore", "alembic", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_is_no_cut)


def _is_no_cut(record: logging.LogRecord) -> bool:
    # Returning without an end is how the relay shows a client that its response was cut.
    return "without completing response" not in str(record.msg)
