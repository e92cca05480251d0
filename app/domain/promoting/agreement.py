"""Whether two sets of vectors of the same texts come from one model: pure statistics, and what they say.

Cosines alone say little: unrelated texts are at 0.14 by one model and at 0.81 by another (E5). What tells is how far a
text's two vectors are above those of different texts, and whether each finds the other among all.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from app.inference.base import Vectors

Finding = Literal["same", "near", "mixed", "related", "other", "too_few"]
Scale = Literal["same", "stored_longer_or_shorter", "stored_normalized"]

MIN_ROWS = 5
"""Fewer tell nothing; these do, since no other model gives five texts of different vectors a cosine near 1."""

# Measured on 500 descriptions of applications, 200 draws of 64, as agreement (0 is chance, 1 the same vectors):
#   1.000         the same model, task and text; 0.9996 int8 against float32 weights
#   0.94 to 0.99  a prefix too many on a model without prefixes; other punctuation between the same fields
#   0.89 to 0.94  E5, lower case for upper; two of three fields of the text
#   0.80 to 0.83  E5, queries' prefix for passages'
#   0.56 to 0.80  one of three fields
#   at most 0.02  another model, or texts of other rows (0.05)
SAME, SAME_ROW, NEAR, SIGNAL = 0.995, 0.95, 0.85, 0.2
# Of the rows that agree. Chance finds 1 of 64 texts; another model found 4 at most.
MOST, SELF = 0.9, 0.95
# Two models order pairs of the same texts alike (0.15 to 0.65); vectors and texts of different rows do not (at most
# 0.17, and 0.11 of one model). Noise falls with the number of rows: below 32, 0.33 was seen.
STRUCTURE, STRUCTURE_ROWS = 0.2, 32
# Distances from length 1 that half precision makes.
UNIT = 2e-3
TIE = 1e-6


@dataclass(frozen=True, slots=True)
class Agreement:
    """Numbers of one comparison. Cosines are between stored vectors and those made now.

    `shuffled_cosine` is the median over different texts. `agreement` is the median of (cosine - shuffled) / (1 -
    shuffled) over the rows, `agreeing` the share of rows of 0.95 or more that find themselves, `self_recall` that of
    rows whose new vector is nearest to its own stored one. `structure` is the correlation of the similarities among the
    stored vectors with those among the new ones, which needs no common space. `norms` are the least, median and
    greatest length of stored vectors, `new_norms` those of new ones.
    """

    rows: int
    median_cosine: float
    p5_cosine: float
    shuffled_cosine: float
    agreement: float
    agreeing: float
    self_recall: float
    structure: float
    norms: tuple[float, float, float]
    new_norms: tuple[float, float, float]
    scale: Scale

    @property
    def finding(self) -> Finding:
        """`same`, `near` (one space, small differences), `mixed` (some rows are the same, some not), `related` (one
        space, or one text within the other), `other`."""
        if self.rows < MIN_ROWS:
            return "too_few"
        if self.agreement >= SAME and self.agreeing >= MOST:
            return "same"
        if self.agreement >= NEAR and self.self_recall >= SELF:
            return "near"
        # By chance not one row agrees: no row of another model has been seen above 0.3.
        if self.agreement >= SAME or self.agreeing * self.rows >= 2:
            return "mixed"
        return "related" if self.agreement >= SIGNAL else "other"

    @property
    def same_texts(self) -> bool:
        """Whether both are plainly vectors of the same texts, whoever made them."""
        return self.agreement >= SIGNAL or (self.structure >= STRUCTURE and self.rows >= STRUCTURE_ROWS)


def compare(stored: Vectors, new: Vectors) -> Agreement:
    """`stored` and `new` have the shape (n, d), a row each for the same text, no text twice."""
    n = len(stored)
    if n == 0:
        return Agreement(0, 0, 0, 0, 0, 0, 0, 0, (0, 0, 0), (0, 0, 0), "same")
    norms, new_norms = np.linalg.norm(stored, axis=1), np.linalg.norm(new, axis=1)
    a, b = _unit(stored, norms), _unit(new, new_norms)
    cosines = b @ a.T
    own = cosines.diagonal()
    different = ~np.eye(n, dtype=bool)
    shuffled = float(np.median(cosines[different])) if n > 1 else 0.0
    each = (own - shuffled) / max(1.0 - shuffled, TIE)
    found = own >= cosines.max(axis=1) - TIE  # equal stored vectors are as good as one's own
    return Agreement(
        rows=n,
        median_cosine=float(np.median(own)),
        p5_cosine=float(np.percentile(own, 5)),
        shuffled_cosine=shuffled,
        agreement=float(np.median(each)),
        agreeing=float(np.mean((each >= SAME_ROW) & found)),
        self_recall=float(np.mean(found)),
        structure=_structure(a, b),
        norms=_spread(norms),
        new_norms=_spread(new_norms),
        scale=_scale(norms, new_norms),
    )


def _unit(vectors: Vectors, norms: Vectors) -> Vectors:
    """A vector of length 0 stays one: it is similar to nothing."""
    unit = vectors / np.where(norms > 0, norms, 1)[:, None]
    return unit.astype(np.float32)


def _structure(a: Vectors, b: Vectors) -> float:
    above = np.triu_indices(len(a), 1)
    one, other = (a @ a.T)[above], (b @ b.T)[above]
    if len(one) < 2 or one.std() < TIE or other.std() < TIE:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _spread(norms: Vectors) -> tuple[float, float, float]:
    return float(norms.min()), float(np.median(norms)), float(norms.max())


def _scale(norms: Vectors, new_norms: Vectors) -> Scale:
    ratio = norms / np.where(new_norms > 0, new_norms, 1)
    if float(np.median(np.abs(ratio - 1))) <= 10 * UNIT:
        return "same"
    return "stored_normalized" if float(np.abs(norms - 1).max()) <= UNIT else "stored_longer_or_shorter"
