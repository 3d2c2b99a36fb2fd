"""`meter work`: what `meter serve --workers` starts, a process that serves one of its sockets."""

import asyncio
import gc
import logging
import secrets
import socket
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec
import uvloop

from meter.app import house, serving
from meter.app.actions import clock
from meter.app.control import Credentials
from meter.app.seeding import seed
from meter.app.upstreams import SAMPLE
from meter.cli import opening
from meter.datadir import ADMIN_TOKEN_FILE, read_or_make
from meter.logs.lines import JsonLines, Redaction, TextLines
from meter.logs.writer import Writer
from meter.metrics import count_as
from meter.rates import Shared
from meter.settings import ConfigurationError, Settings
from meter.settings.agreement import ADMIN_TOKEN_LENGTH_MIN
from meter.store import revision
from meter.store.database import Database
from meter.store.installation import check_pepper

# How many objects there are more before the collector looks at them.
COLLECT_AFTER = 10_000

_NO_UPSTREAM = (
    "no upstream is configured. Set ROUTERHUB_API_KEY for RouterHub; or METER_UPSTREAM_URL, and "
    "METER_UPSTREAM_API_KEY where that server wants one; or [[upstreams]] in meter.toml; or try meter "
    "without a provider: meter serve --sample"
)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line said; there is no secret among it."""

    config: Path | None
    sample: bool
    settings: dict[str, str | None]

    def load(self) -> Settings:
        """Read the configuration of a server."""
        found = opening.settings(self.config, **self.settings)
        if self.sample:
            return msgspec.structs.replace(found, upstreams=(SAMPLE,))
        if not found.upstreams:
            raise ConfigurationError([_NO_UPSTREAM])
        return found


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is told; secrets it reads from where its parent did."""

    options: Options
    data: int | None = None
    """The descriptor of the socket to serve; so is the next."""
    control: int | None = None


@click.command(hidden=True)
@click.argument("name")
def work(name: str) -> None:
    """Serve one socket of a `meter serve --workers`, which gives orders on standard input."""
    orders = msgspec.json.decode(sys.stdin.buffer.readline(), type=Orders)
    settings = orders.options.load()
    credentials, _ = open_credentials(settings)
    log = set_up_logging(settings, credentials, name)
    count_as(name)
    listeners = serving.Listeners(_inherited(orders.data), _inherited(orders.control))
    with opening.database(settings) as database:
        premises = house.Premises(
            settings=settings,
            database=database,
            credentials=credentials,
            prepare=partial(prepare, settings, database, credentials),
            share=share_rates,
            holder=name,
            shows_metrics=listeners.control is not None,
            dropped_lines=lambda: log.dropped,
        )
        run(partial(serving.serve, premises, listeners), lifeline=sys.stdin.fileno())


def prepare(settings: Settings, database: Database, credentials: Credentials) -> None:
    """See to it that the database is what this server works with; raises what is wrong with it."""
    if revision.current(database) != revision.HEAD:
        from meter.cli.migrations import bring_up_to_date  # noqa: PLC0415 (large, and seldom needed)

        bring_up_to_date(database)
    check_pepper(database, credentials.pepper)
    seed(settings, database, clock.now())


def share_rates(url: str) -> Shared:
    """Make the counters that servers share."""
    from meter.rates.shared import SharedCounters  # noqa: PLC0415 (large, and seldom needed)

    return SharedCounters(url)


def _inherited(descriptor: int | None) -> socket.socket | None:
    return None if descriptor is None else socket.socket(fileno=descriptor)


def run(serve: Callable[[asyncio.Event], Coroutine[Any, Any, None]], lifeline: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT comes, or the lifeline ends."""
    # What has been loaded stays: nobody has to look through all of it for garbage again and again. Nor for
    # every few requests, which leave none that their counts of references do not show.
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(serve, lifeline))


async def _serve(serve: Callable[[asyncio.Event], Coroutine[Any, Any, None]], lifeline: int | None) -> None:
    stop = serving.stop_on_signals()
    if lifeline is not None:
        loop = asyncio.get_running_loop()
        loop.add_reader(lifeline, partial(_stop_without_parent, loop, lifeline, stop))
    await serve(stop)


def _stop_without_parent(loop: asyncio.AbstractEventLoop, lifeline: int, stop: asyncio.Event) -> None:
    loop.remove_reader(lifeline)
    stop.set()


def open_credentials(settings: Settings) -> tuple[Credentials, bool]:
    """Return the secrets that a server runs with, and whether the admin token was made now."""
    if settings.admin_token is not None:
        admin_token, made = settings.admin_token.reveal(), False
    else:
        path = settings.data_dir / ADMIN_TOKEN_FILE
        admin_token, made = read_or_make(path, lambda: secrets.token_urlsafe(32))
    if len(admin_token) < ADMIN_TOKEN_LENGTH_MIN:
        where = settings.data_dir / ADMIN_TOKEN_FILE
        raise ValueError(
            f"the admin token in {where} has fewer than {ADMIN_TOKEN_LENGTH_MIN} characters: "
            "delete the file, so that one is made"
        )
    credentials = Credentials(
        pepper=opening.pepper(settings),
        admin_token=admin_token,
        metrics_token=None if settings.metrics_token is None else settings.metrics_token.reveal(),
    )
    return credentials, made


def set_up_logging(settings: Settings, credentials: Credentials, process: str = "") -> Writer:
    """Log to standard error, without secrets; of several processes, each line says whose it is."""
    redaction = Redaction([*settings.secrets, credentials.admin_token, credentials.pepper.decode()])
    for_people = settings.log_format == "text" or (settings.log_format == "auto" and sys.stderr.isatty())
    writer = Writer(sys.stderr.fileno())
    writer.setFormatter((TextLines if for_people else JsonLines)(process, redaction))
    logging.basicConfig(level=logging.INFO, handlers=[writer])
    # They say at every request what the ledger says better, and httpx would say the upstream's URL.
    for name in ("httpx", "httpcore", "alembic", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_is_no_cut)
    return writer


def _is_no_cut(record: logging.LogRecord) -> bool:
    # Returning without an end is how the relay shows a client that its response was cut.
    return "without completing response" not in str(record.msg)
