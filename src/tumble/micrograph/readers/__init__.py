"""One module per kind of file; :mod:`tumble.micrograph.registry` says which reads what."""
