"""Measurements of accuracy and speed; ``python -m benchmarks.NAME --help`` for each.

They write JSON and print a table. They are not tests: nothing here is asserted or timed by the checks.
"""
