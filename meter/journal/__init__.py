"""The way of a settled event into the ledger, which is never in a client's way."""
