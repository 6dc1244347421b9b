"""What a run came to: its calls in time, what it saved, wasted, spent and waited for, and why.

Counted and decided from events, or from what is kept of them, with the words for it; how it is laid
out is not decided here.
"""
