"""The words of small networks: byte pairs learnt from what is asked in training, no file needed, and what footage
teaches the names of.

Any text can be written with the pairs, as every byte is a word of its own; the trained wordings cost few tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from x2roto.engine import tasks
from x2roto.engine.wording import Lexicon
from x2roto.train.footage import Material, Shape, film
from x2roto.train.footage.vocabulary import COLOURS, names_known, nouns, plural

WORDS = 2048  # in all, the markers of the chat template included
CLIPS = 150
WORN = frozenset({"clothing", "dress", "shirt", "jacket"})  # what a person's colour is that of


def learnt_tokenizer(markers: tuple[str, ...]) -> Tokenizer:
    """Byte pairs of wordings, nouns and what is said of `CLIPS` drawn clips; the same for every run."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS - len(markers),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    tokenizer.add_special_tokens(list(markers))
    return tokenizer


def footage_lexicon() -> Lexicon:
    """The names and colours that footage is asked for by."""
    people = frozenset(noun for noun, row in nouns().items() if "person" in row.names)
    return Lexicon({name: plural(name) for name in names_known()}, frozenset(COLOURS), people, WORN)


def _texts() -> Iterator[str]:
    yield from _wordings()
    yield "user\nassistant\nsystem\n"
    yield from (f"<{second}.0 seconds>" for second in range(1, 9))
    for row in nouns().values():
        for name in row.names:
            # Alone and after other words; twice, or the least frequent names would stay in pieces.
            yield from 2 * (name, f" {name}", f" {plural(name)}")
    material, shape = Material.open(None), Shape(48, 72, (4,))
    for number in range(CLIPS):
        said = film(material, (0, number), shape, 4).language
        yield from (expression.text for expression in (*said.expressions, *said.questions, *said.absent))
        if said.caption is not None:
            yield said.caption.text


def _wordings() -> Iterator[str]:
    for task in tasks.TASKS.values():
        for style, wording in task.wordings.items():
            for number in range(len(wording.questions)):
                for media in task.media:
                    yield tasks.question(task, media, ["x"], index=number, style=style)
            for number in range(len(wording.answers)):
                yield tasks.answer(task, text="", index=number, style=style)
