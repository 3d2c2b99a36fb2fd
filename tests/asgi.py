"""meter, with every request going through ASGI: `python -m tests.asgi serve`, for `make asgi`."""

from meter.cli import main
from meter.proxy.protocol import DataProtocol


def _leave_to_asgi(_: DataProtocol) -> bool:
    return False


if __name__ == "__main__":
    DataProtocol.takes_on = _leave_to_asgi  # type: ignore[method-assign, assignment]
    main()
