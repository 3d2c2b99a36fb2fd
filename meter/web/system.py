"""What machines ask of the control plane: metrics."""

from collections.abc import Callable
from dataclasses import dataclass

from litestar import Controller, Response, get
from litestar.di import NamedDependency

from meter.web.access import FOR_SCRAPERS


@dataclass(frozen=True)
class Scrape:
    """What this controller works with."""

    render: Callable[[], bytes]
    content_type: str


class SystemController(Controller):
    """Metrics for Prometheus."""

    include_in_schema = False

    # Rendering thousands of series takes milliseconds, which the event loop does not have.
    @get("/metrics", sync_to_thread=True, opt=FOR_SCRAPERS)
    def metrics(self, scrape: NamedDependency[Scrape]) -> Response[bytes]:
        """Return the metrics page."""
        # Litestar adds the charset to text by itself, and Prometheus refuses to have it twice.
        media_type = scrape.content_type.removesuffix("; charset=utf-8")
        return Response(scrape.render(), media_type=media_type)
