"""What may be called before it is asked for."""
