"""Keys for one purpose each, all made of the pepper.

What was signed or hashed for one purpose means nothing in another, although there is one secret to keep.
"""

import hmac

ADMIN_TOKENS = "admin tokens"


def subkey(pepper: bytes, purpose: str) -> bytes:
    """Return the 32 bytes that serve one purpose. Digests of the data plane's keys use the pepper itself."""
    return hmac.digest(pepper, f"meter: {purpose}".encode(), "sha256")
