"""The classifier as a service, and the folder watcher: a model's word while the microscope runs.

:func:`tumble.service.app.create_service` makes the web service (extra ``serve``), :mod:`tumble.client` speaks to it,
:class:`tumble.service.watch.FolderWatch` takes micrographs from a folder as they are saved and needs no extra.
"""
