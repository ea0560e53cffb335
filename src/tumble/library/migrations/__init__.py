"""Numbered revisions of the library's schema, applied by :mod:`tumble.library.database`.

A new revision is a new file in ``versions`` and a new entry in :data:`tumble.library.schema.KNOWN_REVISIONS`;
files of released versions never change.
"""
