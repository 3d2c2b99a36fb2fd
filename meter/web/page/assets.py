"""The page's styles, its script and its icon: files of our own, served as they are."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from litestar import Controller, Response, get
from litestar.params import FromPath

from meter.core.errors import NotFound
from meter.web.access import FOR_ANYBODY

KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Their addresses change with what is in them.
FOR_A_YEAR = "public, max-age=31536000, immutable"
_FOLDER = Path(__file__).parent / "assets"


def _read() -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(_FOLDER.iterdir()) if path.suffix in KINDS}


FILES = _read()


def address(name: str) -> str:
    """Return where a file is, in its version of now."""
    return f"/assets/{name}?v={hashlib.sha256(FILES[name]).hexdigest()[:12]}"


class AssetController(Controller):
    """Serves the files; there are no others."""

    include_in_schema = False
    opt = FOR_ANYBODY

    @get("/assets/{name:str}", sync_to_thread=False)
    def show(self, name: FromPath[str]) -> Response[bytes]:
        """Return a file."""
        if name not in FILES:
            raise NotFound("There is no such file.")
        return Response(
            FILES[name],
            media_type=KINDS[Path(name).suffix],
            headers={
                "cache-control": FOR_A_YEAR,
                "x-content-type-options": "nosniff",
                "content-security-policy": "default-src 'none'; style-src 'self'",
            },
        )
