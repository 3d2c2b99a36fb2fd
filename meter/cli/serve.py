"""`meter serve`: the first start, what it shows, and the servers, in this process or in several."""

import logging
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click
import msgspec

from meter import metrics
from meter.app import actions, house, serving
from meter.app.control import Credentials
from meter.app.descriptors import raise_limit
from meter.app.upstreams import SAMPLE
from meter.cli import opening
from meter.cli.work import Options, Orders, open_credentials, run, set_up_logging, share_rates
from meter.cli.work import prepare as prepare_database
from meter.datadir import ADMIN_TOKEN_FILE, JOURNAL_FOLDER, claim, prepare
from meter.settings import Settings
from meter.store import teams
from meter.store.database import Database
from meter.store.failures import DatabaseDamaged, DatabaseUnavailable
from meter.supervisor import Program, Supervisor

log = logging.getLogger(__name__)

# Whom the audit log names for them.
FIRST_START = "first start"
FIRST_TEAM = "default"
FIRST_KEY = "first"
METRICS_DIRECTORY = "metrics"
# A file of a few hundred megabytes is looked at as a whole in this time.
CHECK_SECONDS_MAX = 5.0
# Beyond what children may take by the settings: for the interpreter, and for closing the database.
CHILDREN_SECONDS = serving.CLOSING_SECONDS + 5.0


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="The configuration.  [default: meter.toml]")
@click.option("--host", help="Address of the data listener.")
@click.option("--port", help="Port of the data listener.")
@click.option("--admin-host", help="Address of the control listener.")
@click.option("--admin-port", help="Port of the control listener.")
@click.option("--workers", help="Processes that serve requests; more than one need PostgreSQL.")
@click.option("--sample", is_flag=True, help="Answer from a built-in sample provider; needs no account.")
def serve(config: Path | None, sample: bool, **settings: str | None) -> None:  # noqa: FBT001 (click's flag)
    """Start the proxy and its control listener."""
    options = Options(config=config, sample=sample, settings=settings)
    configured = options.load()
    prepare(configured.data_dir)
    locks = [claim(folder) for folder in _claimed(configured)]
    credentials, token_is_new = open_credentials(configured)
    writer = set_up_logging(configured, credentials)
    raise_limit(configured)
    with opening.database(configured) as database:
        _refuse_damage(configured, database)
        first_key = _first_start(configured, database, credentials)
        notes = _Notes(configured, first_key, credentials.admin_token if token_is_new else None)
        with (
            serving.listen(configured.host, configured.port) as data,
            serving.listen(configured.admin_host, configured.admin_port) as control,
        ):
            # Whoever reads the notes may stop the server before it has begun, and that is a clean end too.
            signal.signal(signal.SIGTERM, _leave)
            notes.show(serving.address(data), serving.address(control))
            if configured.workers == 1:
                listeners = serving.Listeners(data, control)
                premises = house.Premises(
                    settings=configured,
                    database=database,
                    credentials=credentials,
                    prepare=partial(prepare_database, configured, database, credentials),
                    dropped_lines=lambda: writer.dropped,
                    share=share_rates,
                )
                run(partial(serving.serve, premises, listeners))
                database.checkpoint()
            else:
                database.dispose()
                _supervise(configured, options, data, control, locks)


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(0)


def _claimed(settings: Settings) -> set[Path]:
    """Return the folders that this server has to itself: its data, and its SQLite database's."""
    folders = {settings.data_dir}
    return folders if settings.sqlite_path is None else folders | {settings.sqlite_path.parent}


def _supervise(
    settings: Settings, options: Options, data: socket.socket, control: socket.socket, locks: list[int]
) -> None:
    """Serve with children, which hold the data directory as long as any of them lives."""
    counts = settings.data_dir / METRICS_DIRECTORY
    programs = [
        _program(f"data-{number}", data, Orders(data=data.fileno(), options=options))
        for number in range(settings.workers)
    ]
    programs.append(_program("control", control, Orders(control=control.fileno(), options=options)))
    supervisor = Supervisor(
        programs,
        environment=os.environ | metrics.share(counts),
        kept=tuple(locks),
        ended=lambda name: metrics.forget(counts, name),
        patience_seconds=settings.shutdown_delay_seconds
        + settings.shutdown_timeout_seconds
        + CHILDREN_SECONDS,
    )
    if not supervisor.run():
        sys.exit(1)


def _program(name: str, listener: socket.socket, orders: Orders) -> Program:
    command = (sys.executable, "-m", "meter", "work", name)
    return Program(name=name, command=command, orders=msgspec.json.encode(orders) + b"\n", listener=listener)


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
        if SAMPLE in self._settings.upstreams:
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


def _refuse_damage(settings: Settings, database: Database) -> None:
    """Start on no damaged file: it would answer wrongly, or lose what is written to it."""
    try:
        database.check(CHECK_SECONDS_MAX)
    except DatabaseDamaged as fault:
        raise ValueError(
            f"the database {settings.sqlite_path} is damaged ({fault}). Nothing was changed, and the journal "
            f"in {settings.data_dir / JOURNAL_FOLDER} is kept. Move the file and those beside it that end in "
            "-wal and -shm away, put a backup in its place, delete the files 'cursor' and 'done' from the "
            "folders of the journal, so that the last day's events are shipped again, and start meter again."
        ) from fault
    except DatabaseUnavailable:
        # Away is what the next steps can live with.
        return


def _first_start(settings: Settings, database: Database, credentials: Credentials) -> str | None:
    """Make the first team and key where there is no team yet; returns the key's secret."""
    try:
        prepare_database(settings, database, credentials)
        if teams.list_all(database):
            return None
    except DatabaseUnavailable as fault:
        log.warning(
            "the database is away (%s): only keys known from before are served until it is back", fault
        )
        return None
    team = actions.register_team(database, FIRST_START, FIRST_TEAM)
    _, secret = actions.issue_key(database, credentials.pepper, FIRST_START, team.id, FIRST_KEY, None)
    return secret
