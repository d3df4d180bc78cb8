"""METEOR and CIDEr of captions, by pycocoevalcap, and the caption in a grounded answer."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING

from x2roto.errors import ModelError
from x2roto.evaluate.metrics import Metric, State

if TYPE_CHECKING:
    from pycocoevalcap.meteor.meteor import Meteor

# Where a grounded answer is cut: after a sentence, at a line's end, and before a word with a capital.
_CUT = re.compile(r"(?<=[.!?])(?:\s+|$)|\n+|(?<=\s)(?=[A-Z])")


def answered_caption(answer: str) -> str:
    """The caption in a generated grounded answer: without markup and without what mentions the masks; "" if none.

    Source: wanghao9610/X2SAM@5b0b106 x2sam/engine/runner/loops.py.
    """
    if "<SEG>" not in answer:
        return ""
    parts = [part.strip() for part in _CUT.split(answer) if "<SEG>" not in part]
    plain = re.sub(r"<.*?>", "", " ".join(filter(None, parts)))
    return " ".join(plain.split()).strip("'").strip('"').strip()


def cider(references: Sequence[str], captions: Sequence[str]) -> tuple[float, list[float]]:
    """CIDEr of all and of each; tokens split by a space, one reference each. Rare words are rare in `references`.

    Raises ModelError without pycocoevalcap.
    """
    _need()
    from pycocoevalcap.cider.cider import Cider

    score, each = Cider().compute_score(_lists(references), _lists(captions))
    return float(score), [float(value) for value in each]


def meteor(references: Sequence[str], captions: Sequence[str]) -> tuple[float, list[float]]:
    """METEOR 1.5 of all and of each; tokens split by a space. Raises ModelError without Java."""
    with _running_meteor() as scorer:
        score, each = scorer.compute_score(_lists(references), _lists(captions))
    return score, each


def tokens(texts: Sequence[str]) -> list[str]:
    """Penn Treebank tokens, lower case and without punctuation, split by a space.

    Raises ModelError without Java. The library's own call writes into its package's folder, so its jar is run here.
    """
    _need("java")
    from pycocoevalcap.tokenizer import ptbtokenizer

    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    program = ["java", "-Dfile.encoding=UTF-8", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    lines = "".join(" ".join(text.split()) + "\n" for text in texts)
    done = subprocess.run(
        [*program, "-preserveLines", "-lowerCase"], input=lines, capture_output=True, encoding="utf-8", check=False
    )
    split = done.stdout.split("\n")[:-1]
    if len(split) != len(texts):
        raise ModelError(f"the tokenizer of captions stopped: {done.stderr.strip()[-200:]!r}; check that Java runs")
    return [" ".join(word for word in line.split() if word not in ptbtokenizer.PUNCTUATIONS) for line in split]


def _lists(texts: Sequence[str]) -> dict[int, list[str]]:
    return {i: [text] for i, text in enumerate(texts)}


def _missing(*programs: str) -> str:
    """What to install, in words, before captions can be scored; "" when all is there."""
    if find_spec("pycocoevalcap") is None:
        return "captions need the Python package pycocoevalcap: run pip install pycocoevalcap"
    if not all(map(shutil.which, programs)):
        return "tokens and METEOR of captions need Java: install a Java runtime, so that `java` is found"
    return ""


def _need(*programs: str) -> None:
    missing = _missing(*programs)
    if missing:
        raise ModelError(missing)


@contextmanager
def _running_meteor() -> Iterator[Meteor]:
    _need("java")
    from pycocoevalcap.meteor.meteor import Meteor

    scorer = Meteor()
    try:
        yield scorer
    finally:
        # Left to the garbage collector, its pipes make warnings and, after a failure, its lock waits for ever.
        if scorer.lock.locked():
            scorer.lock.release()
        for pipe in (scorer.meteor_p.stdout, scorer.meteor_p.stderr):
            pipe.close()


class CaptionScores(Metric):
    """METEOR (Denkowski and Lavie 2014) and CIDEr (Vedantam et al., CVPR 2015); CIDEr may exceed 1.

    Both need Java for their tokens: without it they are absent.
    """

    def __init__(self) -> None:
        self.captions: dict[str, tuple[str, str]] = {}

    def add(self, key: str, reference: str, caption: str) -> None:
        """The caption of sample `key` beside the one it should have."""
        self.captions[key] = reference, caption

    def result(self) -> dict[str, float]:
        if self.absent():
            return {}
        if not self.captions:
            return {"METEOR": nan, "CIDEr": nan}
        pairs = [self.captions[key] for key in sorted(self.captions)]
        split = tokens([text for pair in pairs for text in pair])
        references, captions = split[::2], split[1::2]
        return {"METEOR": meteor(references, captions)[0], "CIDEr": cider(references, captions)[0]}

    def absent(self) -> dict[str, str]:
        missing = _missing("java")
        return dict.fromkeys(("METEOR", "CIDEr"), missing) if missing else {}

    def state(self) -> State:
        return {"captions": {key: list(pair) for key, pair in self.captions.items()}}

    def absorb(self, state: State) -> None:
        self.captions.update({key: (reference, caption) for key, (reference, caption) in state["captions"].items()})
