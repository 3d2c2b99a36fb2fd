"""What the page's smaller tables hold."""

import shlex
from datetime import datetime

import msgspec

from meter.core.reports import Question
from meter.core.rollup import Sums
from meter.core.views import View


class Kind(msgspec.Struct, frozen=True):
    """Tokens of one kind."""

    name: str
    count: int
    part_of: str = ""
    """The kind that these are a part of; of both, prompt and completion, nothing is."""


def kinds(total: Sums) -> list[Kind]:
    """Return tokens by kind, as reports count them; what nobody used is left out, but for the wholes."""
    found = (
        Kind("Prompt", total.prompt_tokens),
        Kind("cached", total.cached_tokens, "Prompt"),
        Kind("written to the cache", total.cache_write_tokens, "Prompt"),
        Kind("audio in", total.input_audio_tokens, "Prompt"),
        Kind("Completion", total.completion_tokens),
        Kind("reasoning", total.reasoning_tokens, "Completion"),
        Kind("audio out", total.output_audio_tokens, "Completion"),
    )
    return [kind for kind in found if kind.count or not kind.part_of]


def command(view: View, question: Question) -> str:
    """Return the command that prints the table of keys, with the same numbers."""
    given = {
        "since": _written(question.since.astimezone(question.tz)),
        "until": None if question.to_date else _written(question.until.astimezone(question.tz)),
        "tz": view.tz,
        "team": view.team,
        "key": view.key,
        "model": view.model,
        "upstream": view.upstream,
    }
    options = [f"--{name} {shlex.quote(value)}" for name, value in given.items() if value]
    return " ".join(["meter report --by team,key --compare", *options])


def _written(local: datetime) -> str:
    at_midnight = (local.hour, local.minute) == (0, 0)
    return f"{local:%Y-%m-%d}" if at_midnight else f"{local:%Y-%m-%dT%H:%M}"
