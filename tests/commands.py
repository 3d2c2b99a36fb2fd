"""Commands in this process: the same `main()` that a shell starts, without the seconds of starting a Python.

What only a process shows, such as its signals, its sockets and its very start, is tested with `tests.server`.
"""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

from click.testing import CliRunner

from meter.cli import main
from tests import server

Done = subprocess.CompletedProcess[str]


def invoke(data_dir: Path, *arguments: str, **settings: object) -> Done:
    """Run a command on a data directory, in an environment in which only these settings configure it."""
    umask = os.umask(0o077)
    try:
        with (
            mock.patch.dict(os.environ, server.environment(data_dir, **settings), clear=True),
            mock.patch.object(sys, "argv", ["meter", *arguments]),
            contextlib.chdir(data_dir.parent),
            CliRunner().isolation() as (printed, said, _),
        ):
            status = _status()
            sys.stdout.flush()
            sys.stderr.flush()
            return Done(arguments, status, printed.getvalue().decode(), said.getvalue().decode())
    finally:
        os.umask(umask)


def _status() -> int:
    """Run `main()`, and return what the process would exit with; a traceback is raised."""
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0
