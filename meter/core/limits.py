"""What a key or a team is limited to, beside its budgets: models, requests and tokens a minute, concurrency.

A request has to pass the limits of its key and those of its team. What is `None` is as the settings say, and
0 is no limit.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

PATTERNS_MAX = 200
PATTERN_LENGTH_MAX = 256
# Limits near 2**63 would not fit a column; no provider serves so much in a minute.
LIMIT_MAX = 10**12

_EVERY = "/*"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one key, or of one team."""

    models: tuple[str, ...] | None = None
    """Exact names, and `provider/*`; `None` is every model."""
    rpm: int | None = None
    """Requests a minute."""
    tpm: int | None = None
    """Tokens a minute."""
    concurrency: int | None = None
    """Requests under way at once, in one process."""

    def or_else(self, default: "Limits") -> "Limits":
        """Fill in what is not set."""
        return Limits(
            models=default.models if self.models is None else self.models,
            rpm=default.rpm if self.rpm is None else self.rpm,
            tpm=default.tpm if self.tpm is None else self.tpm,
            concurrency=default.concurrency if self.concurrency is None else self.concurrency,
        )


class Defaults(NamedTuple):
    """What stands in for limits that are not set: as the settings say."""

    key: Limits
    team: Limits

    def fill(self, limits: Limits, team_limits: Limits) -> tuple[Limits, Limits]:
        """Fill in what a key and its team have not set."""
        return limits.or_else(self.key), team_limits.or_else(self.team)


# The names of the limits, as the columns and the members of requests have them.
LIMITS = Limits.__struct_fields__


def allows(models: tuple[str, ...] | None, model: str) -> bool:
    """Say whether a list of models allows one, by its name exactly as the request wrote it."""
    if models is None:
        return True
    return model in models or any(
        pattern.endswith(_EVERY) and model.startswith(pattern[:-1]) and len(model) >= len(pattern)
        for pattern in models
    )


def common_models(*lists: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return what all of these lists allow."""
    given = [models for models in lists if models is not None]
    if not given:
        return None
    named = dict.fromkeys(model for models in given for model in models)
    return tuple(model for model in named if all(allows(models, model) for models in given))


def check_models(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return a list of models, each once, or raise `ValueError` with what is wrong with it."""
    checked = tuple(dict.fromkeys(map(_checked_pattern, patterns)))
    if not checked:
        raise ValueError("'models' needs at least one model; to end a key, revoke it")
    if len(checked) > PATTERNS_MAX:
        raise ValueError(f"'models' takes at most {PATTERNS_MAX} models")
    return checked


def check_limits(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is to be set, with its limits checked; raises `ValueError` that names the one at fault."""
    checked = dict(changes)
    if checked.get("models") is not None:
        checked["models"] = check_models(checked["models"])
    for name in set(LIMITS) - {"models"}:
        limit = checked.get(name)
        if limit is not None and not 0 <= limit <= LIMIT_MAX:
            raise ValueError(f"'{name}' must be a whole number from 1 to {LIMIT_MAX}, or 0 for no limit")
    return checked


def _checked_pattern(pattern: str) -> str:
    name = pattern.removesuffix(_EVERY)
    if not name or "*" in name or "?" in name or len(pattern) > PATTERN_LENGTH_MAX:
        raise ValueError(
            f"'models' takes exact names (openai/gpt-4.1) and provider/* for all of one, not {pattern!r}"
        )
    if not name.isprintable() or name != name.strip():
        raise ValueError(
            f"'models' has a name with blanks around it, or one that cannot be printed: {pattern!r}"
        )
    return pattern
