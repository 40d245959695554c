"""Watches arrivals: a series that has been quiet long enough becomes a frozen revision."""
