"""The log: one line each, as JSON or for people, and never in the way of what is logged about."""
