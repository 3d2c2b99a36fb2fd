"""Pure rules: no I/O, no clock, no environment. Time and randomness are arguments."""
