"""Numbers over subjects: the table of all metrics and its page."""
