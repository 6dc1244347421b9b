"""Partial execution: calls that begin while a model still writes them."""
