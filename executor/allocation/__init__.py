"""Calls that several models try at once, as an allocator decides within money and time."""
