"""Command lines: the BIDS App and its tools."""
