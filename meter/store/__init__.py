"""The database: SQLAlchemy Core, synchronous, called from threads. Rows never leave this room."""
