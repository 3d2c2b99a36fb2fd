"""The control plane: what operators and their programs ask, always behind a token."""
