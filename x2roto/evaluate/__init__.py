"""Measures predictions against the truth of a data set.

`metrics` holds the measures, one family a file; they know arrays only, no data set, model or file. Read
`metrics/__init__.py` first.
"""
