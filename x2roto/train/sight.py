"""Stage "sight": finder and outliner together, so that the eyes they share learn from names and from outlines.

Batches that ask by words teach the finder, those that ask by regions the outliner.
"""

from __future__ import annotations

from x2roto.engine.model.x2sam import X2SAM
from x2roto.train.collate import Batch
from x2roto.train.finding import learn_finder, sought
from x2roto.train.matching import Answers
from x2roto.train.network import StepLosses
from x2roto.train.outlining import OutlinerStage


class SightStage(OutlinerStage):
    """The finder on what is asked by words, the outliner on what is asked by regions."""

    def forward(self, batch: Batch, *, learn: bool = True) -> StepLosses | Answers:
        assert batch.text is not None
        if any(batch.text.regions):
            return super().forward(batch, learn=learn)
        return sought(self.model, batch, self.losses, learn=learn)


def learn_sight(model: X2SAM, *, eyes: bool = True) -> None:
    """Stage "sight": the finder, its eyes if `eyes`, and the outliner learn, and nothing else."""
    learn_finder(model, eyes=eyes)
    assert model.outliner is not None
    model.outliner.requires_grad_(True)
