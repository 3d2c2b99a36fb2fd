"""What a server counts of itself, and the page on which Prometheus finds it."""

from meter.metrics.instruments import CONTENT_TYPE, Metrics
from meter.metrics.ledger import KINDS, LedgerFigures
from meter.metrics.names import MODELS_NAMED_MAX, OTHER
from meter.metrics.processes import count_as, forget, share

__all__ = [
    "CONTENT_TYPE",
    "KINDS",
    "MODELS_NAMED_MAX",
    "OTHER",
    "LedgerFigures",
    "Metrics",
    "count_as",
    "forget",
    "share",
]
