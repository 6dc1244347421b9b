"""The journal: what runs did, kept on disk, so that they can go on after their process died."""
