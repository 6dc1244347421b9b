"""Which model tries what, how often at once, and when: decided within money and time."""
