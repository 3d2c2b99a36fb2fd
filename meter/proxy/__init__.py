"""The data plane: what stands between a client and its provider."""
