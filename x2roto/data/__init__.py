"""Public data sets in their own layouts on disk: what they ask, and the truth. Shared by evaluation and training."""
