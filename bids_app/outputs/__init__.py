"""What is written, under which names, and with which provenance."""
