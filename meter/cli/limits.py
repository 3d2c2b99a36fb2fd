"""The options by which `meter keys set` and `meter teams set` change limits, and how limits are shown."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from meter.core.limits import LIMITS, Limits

NONE = "none"
DEFAULT = "default"

Command = TypeVar("Command", bound=Callable[..., Any])

_HELPS = {
    "models": "Models that may be used, by exact name or provider/*; default: all.",
    "rpm": "Requests a minute.",
    "tpm": "Tokens a minute.",
    "concurrency": "Requests under way at once, in each process.",
}
_METAVARS = {"models": "M,M|default"}
_SHORT = {"rpm": "requests/min", "tpm": "tokens/min", "concurrency": "at once"}


def limit_options(command: Command) -> Command:
    """Give a command an option for each limit."""
    for name in reversed(LIMITS):
        metavar = _METAVARS.get(name, "N|none|default")
        command = click.option(f"--{name}", metavar=metavar, help=_HELPS[name])(command)
    return command


def changes(options: Mapping[str, str | None]) -> dict[str, Any]:
    """Read what options change; raises `ValueError` that names the one at fault, or that there is none."""
    given = {name: _value(name, text) for name, text in options.items() if text is not None}
    if not given:
        known = ", ".join(f"--{name.replace('_', '-')}" for name in options)
        raise ValueError(f"say what to change: {known}")
    return given


def shown(limits: Limits) -> str:
    """Show the limits that are set."""
    parts = [] if limits.models is None else [", ".join(limits.models)]
    for name, unit in _SHORT.items():
        limit = getattr(limits, name)
        if limit is not None:
            parts.append(f"{limit or 'any'} {unit}")
    return "; ".join(parts) or "-"


def _value(name: str, text: str) -> Any:
    if text == DEFAULT:
        return None
    if name == "models":
        if text == NONE:
            # It means no limit elsewhere, and would lock the key out here.
            raise ValueError("--models takes names of models, or default for every model; not 'none'")
        return [model.strip() for model in text.split(",")]
    if name not in LIMITS:
        return text
    number = "0" if text == NONE else text
    if not number.isdecimal():
        raise ValueError(f"--{name} takes a whole number, none or default, not {text!r}")
    return int(number)
