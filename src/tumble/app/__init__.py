"""The page in the browser: label, train and explore a library (extra ``app``).

Nothing is imported here, so that the rest of `tumble` works without the extra.
"""
