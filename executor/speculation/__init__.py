"""Speculation in a run: calls that are started before they are asked for."""
