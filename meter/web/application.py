"""The control plane's application: controllers, their guard, and the one shape of errors."""

from collections.abc import Mapping
from typing import Any

from litestar import Litestar, Request, Router
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.routes import BaseRoute
from litestar.types import ControllerRouterHandler

from meter import __version__
from meter.core.access import Asker
from meter.core.errors import MeterError
from meter.store.failures import DatabaseUnavailable, RowRefused
from meter.web import errors
from meter.web.access import FOR_TEAMS, Guard, asker_of
from meter.web.alerts import AlertController
from meter.web.audit import AuditController
from meter.web.budgets import BudgetController
from meter.web.document import Document
from meter.web.events import EventController
from meter.web.idempotency import Replay, provide_once, replayed
from meter.web.keys import KeyController
from meter.web.page.assets import AssetController
from meter.web.page.events import EventPagesController
from meter.web.page.sign_in import SignInController
from meter.web.page.spend import SpendController
from meter.web.prices import PriceController
from meter.web.reports import ReportController
from meter.web.system import SystemController
from meter.web.teams import TeamController
from meter.web.tokens import TokenController

CONTROLLERS = (
    KeyController,
    TeamController,
    PriceController,
    TokenController,
    EventController,
    AuditController,
    BudgetController,
    AlertController,
    ReportController,
    SystemController,
    SignInController,
    SpendController,
    EventPagesController,
    AssetController,
)
DOCUMENT = "/api/v1/openapi.json"


def build(*, guard: Guard, services: Mapping[str, Any], body_bytes_max: int) -> Litestar:
    """Build the application; `services` are the values that controllers name as dependencies."""
    return Application(
        route_handlers=CONTROLLERS,
        dependencies={name: _provide(service) for name, service in services.items()}
        | {
            "asker": Provide(_asker, sync_to_thread=False),
            "once": Provide(provide_once, sync_to_thread=False),
        },
        guards=[guard],
        exception_handlers={
            Replay: replayed,
            MeterError: errors.refused,
            HTTPException: errors.http_error,
            DatabaseUnavailable: errors.away,
            RowRefused: errors.unfit,
            ValueError: errors.invalid,
            RecursionError: errors.too_deep,
            Exception: errors.unexpected,
        },
        openapi_config=_openapi(),
        request_max_body_size=body_bytes_max,
        logging_config=None,
        debug=False,
    )


class Application(Litestar):
    """Litestar with msgspec alone, which all our bodies are made of."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        # Those for pydantic and attrs would load both wherever they are installed, 10 MB of them.
        return [*plugins, MsgspecDIPlugin()]


class DocumentRouter(Router):
    """Serves the description at one path, without the pages in HTML that Litestar puts beside it."""

    def register(self, value: ControllerRouterHandler) -> list[BaseRoute]:
        """Register what serves the path itself."""
        serves_it = isinstance(value, HTTPRouteHandler) and value.paths == {"/"}
        return super().register(value) if serves_it else []


def _provide(service: Any) -> Provide:
    return Provide(lambda: service, sync_to_thread=False, use_cache=True)


def _asker(request: Request[Any, Any, Any]) -> Asker:
    return asker_of(request)


def _openapi() -> OpenAPIConfig:
    bearer = SecurityScheme(type="http", scheme="bearer", description="An admin token.")
    return OpenAPIConfig(
        title="meter: admin API",
        version=__version__,
        openapi_router=DocumentRouter(DOCUMENT, route_handlers=[], opt=FOR_TEAMS, include_in_schema=False),
        render_plugins=[Document(path="/")],
        components=Components(security_schemes={"admin": bearer}),
        security=[{"admin": []}],
        use_handler_docstrings=True,
    )
