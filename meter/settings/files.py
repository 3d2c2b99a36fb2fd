"""Settings from files: `METER_PEPPER_FILE` names the file that holds `METER_PEPPER`, and so with all others.

Containers are given secrets as files, since an environment is shown by many tools.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

SUFFIX = "_FILE"
ROUTERHUB_VARIABLE = "ROUTERHUB_API_KEY"


def with_files(
    environment: Mapping[str, str], variables: Iterable[str], faults: list[str]
) -> Mapping[str, str]:
    """Add what files say to an environment; what is wrong with one goes to `faults`."""
    read = dict(environment)
    for variable in (*variables, ROUTERHUB_VARIABLE):
        name = environment.get(f"{variable}{SUFFIX}")
        if not name:
            continue
        if environment.get(variable):
            faults.append(f"{variable}{SUFFIX}: {variable} is set as well; leave one of them out")
            continue
        text = read_file(f"{variable}{SUFFIX}", name, faults)
        if text is not None:
            read[variable] = text
    return read


def read_file(variable: str, name: str, faults: list[str]) -> str | None:
    """Return what a file that a variable names says, without the line's end."""
    try:
        text = Path(name).expanduser().read_text(encoding="utf-8").strip()
    except OSError as fault:
        faults.append(f"{variable}: {name} cannot be read: {fault.strerror}")
        return None
    except ValueError:
        faults.append(f"{variable}: {name} is not text in UTF-8")
        return None
    if not text:
        faults.append(f"{variable}: {name} is empty")
        return None
    return text
