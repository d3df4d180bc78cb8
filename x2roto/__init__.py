"""x2roto: mattes for every frame of a clip, from a sentence, a question, a class list or a region.

Importing this package loads neither torch nor transformers nor av.
"""

__version__ = "0.1.0"
