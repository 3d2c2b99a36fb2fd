"""The data directory is closed to others, its secrets are made once, and one server has it."""

import contextlib
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from meter.datadir import SERVER_LOCK, InUseError, claim, prepare, read_or_make

CLAIMANT = """
import sys
from pathlib import Path
from meter.datadir import InUseError, claim
try:
    claim(Path(sys.argv[1]))
except InUseError as fault:
    sys.exit(str(fault))
"""


def mode(path: Path) -> int:
    """Return who may do what with a file."""
    return stat.S_IMODE(path.stat().st_mode)


def never() -> str:
    """Make no secret, because there is one."""
    raise AssertionError("the secret was made again")


def claim_elsewhere(directory: Path) -> subprocess.CompletedProcess[str]:
    """Try to take the directory from another process."""
    command = [sys.executable, "-c", CLAIMANT, str(directory)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_directory_is_the_owners_alone(tmp_path: Path) -> None:
    """A new directory, with the ones above it, lets nobody else in."""
    directory = tmp_path / "above" / "data"

    prepare(directory)

    assert mode(directory) == 0o700


def test_preparing_twice_is_harmless(tmp_path: Path) -> None:
    """What lies in the directory stays."""
    directory = tmp_path / "data"
    prepare(directory)
    (directory / "meter.db").write_text("kept")

    prepare(directory)

    assert (directory / "meter.db").read_text() == "kept"


def test_a_secret_is_made_on_first_use(tmp_path: Path) -> None:
    """A secret is made, kept in a file for the owner alone, and said to be new."""
    path = tmp_path / "token"

    found = read_or_make(path, lambda: "s3cr3t")

    assert found == ("s3cr3t", True)
    assert mode(path) == 0o600
    assert path.read_text() == "s3cr3t\n"


def test_a_secret_is_made_once(tmp_path: Path) -> None:
    """Later uses read the same secret, and make none."""
    path = tmp_path / "token"
    read_or_make(path, lambda: "s3cr3t")

    assert read_or_make(path, never) == ("s3cr3t", False)


def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    """A lax umask opens neither the directory nor a secret to others."""
    directory = tmp_path / "data"
    before = os.umask(0)

    try:
        prepare(directory)
        read_or_make(directory / "token", lambda: "s3cr3t")
        descriptor = claim(directory)
    finally:
        os.umask(before)

    os.close(descriptor)
    assert mode(directory) == 0o700
    assert {mode(path) for path in directory.iterdir()} == {0o600}


def test_a_secret_is_never_empty(tmp_path: Path) -> None:
    """A file that a crash left empty is no secret: an empty admin token would let everybody in."""
    path = tmp_path / "token"
    path.touch(mode=0o600)

    try:
        secret, _ = read_or_make(path, lambda: "s3cr3t")
    except ValueError:
        return
    assert secret == "s3cr3t"


def test_of_many_who_make_a_secret_at_once_all_get_the_same(tmp_path: Path) -> None:
    """Eight threads that start together agree on one secret, which exactly one of them made."""
    path = tmp_path / "token"
    together = threading.Barrier(8)
    found: list[tuple[str, bool]] = []

    def make(number: int) -> str:
        # Making takes a moment, in which the others must not find half of it.
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(0.2)
        return f"secret {number}"

    def use(number: int) -> None:
        found.append(read_or_make(path, lambda: make(number)))

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    made = [secret for secret, new in found if new]
    assert len(made) == 1
    assert [secret for secret, _ in found] == made * 8


def test_a_secret_is_not_written_through_a_link(tmp_path: Path) -> None:
    """A link that somebody put in the secret's place is not followed to make a file elsewhere."""
    path, target = tmp_path / "token", tmp_path / "elsewhere"
    path.symlink_to(target)

    with pytest.raises(OSError):  # noqa: PT011 (any refusal of the system's)
        read_or_make(path, lambda: "s3cr3t")

    assert not target.exists()


def test_one_server_has_the_directory(tmp_path: Path) -> None:
    """A second claim, from the same or another process, is refused by a sentence that names the place."""
    descriptor = claim(tmp_path)

    with pytest.raises(InUseError, match="already serves") as caught:
        claim(tmp_path)
    elsewhere = claim_elsewhere(tmp_path)

    os.close(descriptor)
    assert str(tmp_path) in str(caught.value)
    assert elsewhere.returncode == 1
    assert "already serves" in elsewhere.stderr


def test_the_directory_is_free_when_its_server_ends(tmp_path: Path) -> None:
    """The claim ends with its descriptor, and so with its process, however that dies."""
    os.close(claim(tmp_path))

    elsewhere = claim_elsewhere(tmp_path)

    assert elsewhere.returncode == 0, elsewhere.stderr
    assert mode(tmp_path / SERVER_LOCK) == 0o600


def test_two_directories_have_two_servers(tmp_path: Path) -> None:
    """Claims of different directories don't know of each other."""
    for name in ("a", "b"):
        prepare(tmp_path / name)

    descriptors = [claim(tmp_path / name) for name in ("a", "b")]

    assert len(set(descriptors)) == 2
    for descriptor in descriptors:
        os.close(descriptor)
