"""What meter costs a request, beside nginx in the same run: `make bench`."""
