"""Two small models of emoji: their weights, and the programs that made them. `LICENSE.md` says from what.

The weights are read by `app.inference.services`; the rest of this package is needed by nobody who does not train
them anew.
"""

from pathlib import Path

CLIP = Path(__file__).with_name("clip_micro")
TOWER = Path(__file__).with_name("emoji_tower.onnx")
TRAINED_ON = "2026-11-28"
"""Stands for the weights of both: vectors of others do not fit."""
SIZE = 32
"""Pixels, as the tower sees a drawing."""
