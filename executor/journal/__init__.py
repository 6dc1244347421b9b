"""The journal: what runs did, kept on disk, so that they can go on after their process died.

A run writes `notes` in the `book` of the outermost one, which goes to the `journal` and its
`store`. When it goes on, its `history` is read, and `recall` answers its calls. Imports what the
executor may.
"""
