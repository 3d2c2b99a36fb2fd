"""docker-compose.yml as a test reads it."""

import re
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # its stubs are not worth a dependency for one call

ROOT = Path(__file__).parent.parent.parent
FILE = ROOT / "docker-compose.yml"
_VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


def load() -> dict[str, Any]:
    """Read the file; merge keys and anchors are resolved."""
    document: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return document


def environment(service: dict[str, Any]) -> dict[str, str]:
    """Return a service's environment, with the defaults of variables that nobody has set."""
    given: dict[str, str] = service.get("environment", {})
    return {name: _VARIABLE.sub(r"\2", value) for name, value in given.items()}


def mounts(service: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a service's volumes as pairs of a source and a target."""
    return [tuple(volume.split(":")[:2]) for volume in service.get("volumes", [])]
