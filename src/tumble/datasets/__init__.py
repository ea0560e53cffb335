"""Data to try `tumble` on: synthetic and seeded, real and shipped, or read from files."""

from __future__ import annotations

from tumble.datasets._glyphs import card_glyphs
from tumble.datasets.agglomerates import make_agglomerate_micrograph, make_agglomerates
from tumble.datasets.cards import affine_matrices, make_cards
from tumble.datasets.mnist import load_mnist
from tumble.datasets.nanogold import load_nanogold

__all__ = [
    "affine_matrices",
    "card_glyphs",
    "load_mnist",
    "load_nanogold",
    "make_agglomerate_micrograph",
    "make_agglomerates",
    "make_cards",
]
