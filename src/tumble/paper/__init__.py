"""The figures and tables of the paper, recomputed: for the method as published, the default one, and baselines.

One file per figure or family of figures. :func:`tumble.paper.run.reproduce` is the way in; :mod:`tumble.paper.lab`
keeps what was trained and measured, so that a run that was cut off goes on where it was.
"""
