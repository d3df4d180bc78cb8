"""Training X2SAM in its two stages, on one CPU or many machines, and the footage it learns from.

Above `engine`, whose network, task table and preprocessing it trains and uses; nothing imports it but the command
line. Read first: `config.py` (what can be chosen), `network.py` (one training step), `trainer.py` (the loop).
"""
