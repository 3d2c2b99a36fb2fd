"""The composition root: builds every part, connects them by plain callables, and runs both listeners."""
