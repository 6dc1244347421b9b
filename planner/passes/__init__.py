"""Rewrites of a plan: each a function `Plan -> Plan`, run in the order of `PASSES`."""
