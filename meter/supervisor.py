"""Processes: a supervisor starts children, replaces those that end, and takes all of them down with itself.

A child's standard input is its lifeline. It begins with the child's orders, and it ends when the supervisor
does, however that happens, so that no child stays behind with the port. Between a signal and the next thing
that is due, the supervisor sleeps.
"""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

RESTART_SECONDS_MIN = 0.25
RESTART_SECONDS_MAX = 8.0
# What a child dies of after this long is nothing that it would meet again at once.
STEADY_SECONDS = 10.0
KILL_AGAIN_SECONDS = 5.0

STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Program:
    """What is to run: one process at a time, and always one."""

    name: str
    command: Sequence[str]
    orders: bytes
    """What its standard input begins with; no more than a pipe holds."""
    listener: socket.socket
    """The child has it under the same number."""


class _Child:
    """A program, and the process that runs it at the moment."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.due = time.monotonic()
        """When it is to be started; of no meaning while it runs."""
        self.pause: float | None = None
        """How long after its last end that is."""
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: int | None = None
        self._started = 0.0

    @property
    def running(self) -> bool:
        """Say whether there is a process."""
        return self._process is not None

    def start(self, environment: Mapping[str, str], kept: Sequence[int]) -> None:
        """Start a process."""
        self._started = time.monotonic()
        try:
            self._process, self._lifeline = _spawn(self.program, environment, kept)
        except OSError as fault:
            log.warning("%s could not be started: %s", self.program.name, fault)
            self._ended()
        else:
            log.info("%s is process %d", self.program.name, self._process.pid)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process, if there is one."""
        if self._process is not None:
            self._process.send_signal(number)

    def reap(self) -> int | None:
        """Return the exit status, once, if the process has ended."""
        status = None if self._process is None else self._process.poll()
        if status is not None:
            self._process = None
            if self._lifeline is not None:
                os.close(self._lifeline)
            self._ended()
        return status

    def _ended(self) -> None:
        now = time.monotonic()
        if self.pause is None or now - self._started >= STEADY_SECONDS:
            # At once, since requests are waiting.
            self.pause = 0.0
        else:
            self.pause = min(max(2 * self.pause, RESTART_SECONDS_MIN), RESTART_SECONDS_MAX)
        self.due = now + self.pause


def _spawn(
    program: Program, environment: Mapping[str, str], kept: Sequence[int]
) -> tuple[subprocess.Popen[bytes], int]:
    orders, lifeline = os.pipe()
    try:
        os.write(lifeline, program.orders)
        process = subprocess.Popen(  # noqa: S603 (the command is ours)
            program.command,
            stdin=orders,
            env=environment,
            pass_fds=(program.listener.fileno(), *kept),
            # A terminal's Ctrl-C is for the supervisor, which tells the children.
            process_group=0,
        )
    except OSError:
        os.close(lifeline)
        raise
    finally:
        os.close(orders)
    return process, lifeline


class Supervisor:
    """Runs programs until it is told to stop."""

    def __init__(
        self,
        programs: Sequence[Program],
        *,
        environment: Mapping[str, str],
        kept: Sequence[int] = (),
        ended: Callable[[str], None],
        patience_seconds: float,
    ) -> None:
        """Take descriptors that children keep open, whom to tell that a child ended, and how long to wait."""
        self._children = [_Child(program) for program in programs]
        self._environment = environment
        self._kept = kept
        self._tell_ended = ended
        self._patience_seconds = patience_seconds
        self._deadline: float | None = None
        self._ended_well = True

    def run(self) -> bool:
        """Run until SIGTERM or SIGINT, and until all children have ended; says whether they ended well."""
        with _signals() as inbox:
            while self._deadline is None or any(child.running for child in self._children):
                self._start_what_is_due()
                received = _receive(inbox, self._sleep_seconds())
                for child in self._children:
                    self._reap(child)
                if self._deadline is None and received & STOP_SIGNALS:
                    self._stop()
                elif self._deadline is not None and time.monotonic() >= self._deadline:
                    self._kill()
        return self._ended_well

    def _start_what_is_due(self) -> None:
        if self._deadline is not None:
            return
        for child in self._children:
            if not child.running and child.due <= time.monotonic():
                child.start(self._environment, self._kept)

    def _sleep_seconds(self) -> float | None:
        due = [child.due for child in self._children if not child.running]
        if self._deadline is not None:
            due = [self._deadline]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _reap(self, child: _Child) -> None:
        status = child.reap()
        if status is None:
            return
        self._tell_ended(child.program.name)
        if self._deadline is None:
            name = child.program.name
            log.warning("%s ended with status %d; it is started again in %.2f s", name, status, child.pause)
        # A child that was told to stop before it could listen to signals has nothing to finish.
        elif status not in {0, -signal.SIGTERM}:
            log.error("%s ended with status %d", child.program.name, status)
            self._ended_well = False

    def _stop(self) -> None:
        log.info("stopping: the children have %.0f s", self._patience_seconds)
        self._deadline = time.monotonic() + self._patience_seconds
        for child in self._children:
            # Whoever connects once the children have left must be refused, and not wait for nobody.
            child.program.listener.close()
            child.send(signal.SIGTERM)

    def _kill(self) -> None:
        for child in self._children:
            if child.running:
                log.error("%s has not ended in time and is killed", child.program.name)
                child.send(signal.SIGKILL)
        self._deadline = time.monotonic() + KILL_AGAIN_SECONDS


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """Give a socket that receives every signal's number as a byte: none is lost between two looks."""
    inbox, outbox = socket.socketpair()
    with inbox, outbox:
        outbox.settimeout(0)
        signal.set_wakeup_fd(outbox.fileno(), warn_on_full_buffer=False)
        numbers = (signal.SIGCHLD, *STOP_SIGNALS)
        before = {number: signal.signal(number, lambda *_: None) for number in numbers}
        try:
            yield inbox
        finally:
            for number, handler in before.items():
                # Whoever still says that it should stop must not break off an end that is under way.
                signal.signal(number, signal.SIG_IGN if number in STOP_SIGNALS else handler)
            signal.set_wakeup_fd(-1)


def _receive(inbox: socket.socket, seconds: float | None) -> set[int]:
    """Wait for signals, at most so long."""
    inbox.settimeout(seconds)
    try:
        return set(inbox.recv(4096))
    except (TimeoutError, BlockingIOError):
        return set()
