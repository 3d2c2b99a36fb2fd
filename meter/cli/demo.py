"""`meter demo`: everything that meter does, with made-up history and traffic, and nothing left behind."""

import asyncio
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
import msgspec

from meter.app import demo as made_up
from meter.app import house, serving
from meter.app.actions import clock
from meter.app.upstreams import SAMPLE
from meter.cli import opening
from meter.cli.work import open_credentials, prepare, run, set_up_logging, share_rates
from meter.datadir import prepare as prepare_folder
from meter.settings import SETTINGS, Settings, load

HOST = "127.0.0.1"
# What is under way is made up, too.
SHUTDOWN_SECONDS = 5
_DEFAULTS = {setting.name: setting.default for setting in SETTINGS}


@click.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port of the proxy.  [default: 8080, or a free one]"
)
@click.option(
    "--admin-port", type=click.IntRange(0, 65535), help="Port of the page.  [default: 8081, or a free one]"
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="The same number makes the same history."
)
@click.option(
    "--traffic/--no-traffic", default=True, help="Whether requests go on being made.  [default: they do]"
)
def demo(port: int | None, admin_port: int | None, seed: int, traffic: bool) -> None:  # noqa: FBT001 (click's flag)
    """Show everything with made-up data: no account, no network, nothing left behind.

    Starts the proxy with the built-in sample provider, a month of history of three teams, and requests that
    keep coming; prints where the spend page is. All of it is in a folder that goes when this ends.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    click.echo("\n  meter demo: making up a month of use ...")
    with ExitStack() as stack:
        data = stack.enter_context(_listen(port, "port"))
        control = stack.enter_context(_listen(admin_port, "admin_port"))
        settings = stack.enter_context(_settings())
        credentials, _ = open_credentials(settings)
        writer = set_up_logging(settings, credentials)
        logging.getLogger().setLevel(logging.WARNING)
        # Some of its models have no price, so that there is something to see.
        logging.getLogger("meter.app.unpriced").setLevel(logging.ERROR)
        database = stack.enter_context(opening.database(settings))
        prepare(settings, database, credentials)
        premises = made_up.Premises(settings, database, credentials.pepper)
        secrets = made_up.furnish(premises, seed, clock.now())
        url = f"{serving.address(data)}/v1"
        _show(settings, url, serving.address(control), credentials.admin_token, secrets)
        served = house.Premises(
            settings=settings,
            database=database,
            credentials=credentials,
            prepare=partial(prepare, settings, database, credentials),
            share=share_rates,
            dropped_lines=lambda: writer.dropped,
        )
        ask = partial(made_up.traffic, url, secrets, seed) if traffic else _rest
        run(partial(_serve, served, serving.Listeners(data, control), ask))
    click.echo("  meter demo: stopped, and everything of it is gone.")


async def _serve(
    served: house.Premises,
    listeners: serving.Listeners,
    ask: Callable[[asyncio.Event], Coroutine[Any, Any, None]],
    stop: asyncio.Event,
) -> None:
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(ask(stop))
        await serving.serve(served, listeners, stop)
        asking.cancel()


async def _rest(stop: asyncio.Event) -> None:
    await stop.wait()


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(0)


def _listen(port: int | None, name: str) -> AbstractContextManager[socket.socket]:
    """Bind a port; one that nobody asked for by its number may be another one."""
    return serving.listen(HOST, port) if port is not None else _listen_somewhere(int(_DEFAULTS[name]))


@contextmanager
def _listen_somewhere(preferred: int) -> Iterator[socket.socket]:
    with ExitStack() as stack:
        try:
            listener = stack.enter_context(serving.listen(HOST, preferred))
        except ValueError:
            listener = stack.enter_context(serving.listen(HOST, 0))
        yield listener


@contextmanager
def _settings() -> Iterator[Settings]:
    """Give settings that nothing on this machine has a part in, and a folder that goes at the end."""
    with tempfile.TemporaryDirectory(prefix="meter-demo-") as folder:
        options = {
            "data_dir": str(Path(folder) / "data"),
            "shutdown_timeout_seconds": str(SHUTDOWN_SECONDS),
            # Power cuts are no concern of what is gone then anyway.
            "durability": "crash",
            "log_format": "text",
        }
        configured = load({}, Path(os.devnull), **options)
        prepare_folder(configured.data_dir)
        yield msgspec.structs.replace(configured, upstreams=(SAMPLE,))


def _show(settings: Settings, url: str, control_url: str, token: str, secrets: made_up.Secrets) -> None:
    key = secrets["chat-assistant"]
    body = '{"model":"anthropic/claude-sonnet-4","messages":[{"role":"user","content":"Hello!"}]}'
    headers = f"-H 'Content-Type: application/json' -H \"Authorization: Bearer {key}\""
    program = sys.argv[0] if Path(sys.argv[0]).name == "meter" else f"{sys.executable} -m meter"
    lines = (
        "",
        f"  spend page   {control_url}/spend",
        f"  sign in with {token}",
        "",
        f"  proxy        {url}",
        f"  a key        {key}",
        f"  ask it       curl -s {url}/chat/completions {headers} -d '{body}'",
        f"  in a shell   METER_DATA_DIR={settings.data_dir} {program} report",
        "",
        "  Everything here is made up, by the sample provider and a random month; requests keep coming.",
        "  Ctrl-C stops it and leaves nothing behind.",
        "",
    )
    click.echo("\n".join(lines))
