"""The upstreams of a configuration: the default one, and those that `meter.toml` lists."""

import fnmatch
import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from meter.core.stream_usage import check_mode
from meter.settings.files import SUFFIX, read_file
from meter.settings.values import CONFIG_FILE, Secret, as_secret

DEFAULT_UPSTREAM_URL = "https://api.routerhub.ai/v1"
UPSTREAM_NAME_LENGTH_MAX = 64


class UpstreamSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One provider: where it is, with what credential, and for which models."""

    name: str
    url: str
    api_key: Secret | None = None
    models: tuple[str, ...] = ("*",)
    stream_usage: str | None = None

    def serves(self, model: str) -> bool:
        """Say whether a model's name matches one of the patterns (`*` and `?` as in a shell)."""
        # Most serve whatever they are asked for.
        return "*" in self.models or any(fnmatch.fnmatchcase(model, pattern) for pattern in self.models)


class _UpstreamTable(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    url: str
    models: list[str]
    api_key_env: str | None = None
    stream_usage: str | None = None


def read_upstreams(
    values: Mapping[str, Any],
    environment: Mapping[str, str],
    document: Mapping[str, Any],
    faults: list[str],
) -> tuple[UpstreamSettings, ...]:
    """Return all upstreams in order of precedence, the default one last; what is wrong goes to `faults`."""
    listed = document.get("upstreams", [])
    if not isinstance(listed, list):
        faults.append(f"{CONFIG_FILE}: upstreams must be written as [[upstreams]] tables")
        return ()
    named = [_upstream(entry, number, environment, faults) for number, entry in enumerate(listed, 1)]
    fallback = _default_upstream(values, environment)
    found = tuple(upstream for upstream in [*named, fallback] if upstream is not None)
    names = [upstream.name for upstream in found]
    twice = {name for name in names if names.count(name) > 1}
    faults += [f"{CONFIG_FILE}: two upstreams are named {name!r}" for name in sorted(twice)]
    return found


def upstream_url(value: str) -> str:
    """Read the base URL of the default upstream; an empty one is none."""
    return check_upstream_url(value) if value else ""


def check_upstream_url(url: str) -> str:
    """Return a base URL without its last slash, or raise `ValueError`; plain HTTP only to this machine."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.hostname is None:
        raise ValueError("must be a URL such as https://api.example.com/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must have no user, query or fragment; the API key has a setting of its own")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("must be https, since the API key travels with every request")
    return url.rstrip("/")


def as_webhook_url(value: str) -> Secret | None:
    """Read the URL of a webhook; an empty one is none."""
    if not value:
        return None
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be a URL such as https://example.com/alerts")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("must be https, since it says what is spent")
    return Secret(value)


def is_loopback(host: str) -> bool:
    """Say whether an address can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _default_upstream(values: Mapping[str, Any], environment: Mapping[str, str]) -> UpstreamSettings | None:
    routerhub_key = as_secret(environment.get("ROUTERHUB_API_KEY", ""))
    api_key: Secret | None = values["upstream_api_key"] or routerhub_key
    url: str = values["upstream_url"]
    if not url and api_key is None:
        return None
    url = url or DEFAULT_UPSTREAM_URL
    host = urlsplit(url).hostname or "upstream"
    name = "routerhub" if url == DEFAULT_UPSTREAM_URL else host[:UPSTREAM_NAME_LENGTH_MAX]
    return UpstreamSettings(name=name, url=url, api_key=api_key)


def _upstream(
    entry: object, number: int, environment: Mapping[str, str], faults: list[str]
) -> UpstreamSettings | None:
    place = f"{CONFIG_FILE}: upstreams[{number}]"
    try:
        table = msgspec.convert(entry, _UpstreamTable)
        _check_upstream_name(table.name)
        url = check_upstream_url(table.url)
        mode = check_mode(table.stream_usage) if table.stream_usage else None
    except (msgspec.ValidationError, ValueError) as fault:
        faults.append(f"{place}: {fault}")
        return None
    key = "" if table.api_key_env is None else _key(table.api_key_env, environment, place, faults)
    return UpstreamSettings(
        name=table.name, url=url, api_key=as_secret(key), models=tuple(table.models), stream_usage=mode
    )


def _check_upstream_name(name: str) -> None:
    if not 0 < len(name) <= UPSTREAM_NAME_LENGTH_MAX or not name.isprintable():
        raise ValueError(f"name must have 1 to {UPSTREAM_NAME_LENGTH_MAX} printable characters")


def _key(variable: str, environment: Mapping[str, str], place: str, faults: list[str]) -> str:
    found = environment.get(variable, "")
    file = environment.get(f"{variable}{SUFFIX}")
    if not found and file:
        return read_file(f"{variable}{SUFFIX}", file, faults) or ""
    if not found:
        faults.append(f"{place}: the environment has no {variable}, which api_key_env names")
    return found
