"""Keys for one purpose each."""

from meter.core.keys import digest
from meter.core.subkeys import subkey

PEPPER = b"a pepper that is kept outside the database"


def test_every_purpose_has_its_own() -> None:
    """Purposes and peppers have different keys, of 32 bytes, none of which is the pepper's use for keys."""
    found = {subkey(pepper, purpose) for pepper in (PEPPER, b"other") for purpose in ("a", "b")}

    assert len(found) == 4
    assert {len(key) for key in found} == {32}
    assert subkey(PEPPER, "a") == subkey(PEPPER, "a")
    assert digest("a", PEPPER) not in found
