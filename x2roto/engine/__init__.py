"""The X2SAM engine: weights (`Segmenter`), the state of one shot (`Tracker`), the network (`model/`).

Only this package and those above it import torch. It knows neither files of clips nor of mattes.
Read first: `model/x2sam.py` (the network), then `segmenter.py` and `tracker.py`.
"""
