"""The command line: one file per verb, each only a way to call the library. Start with `app.py`."""
