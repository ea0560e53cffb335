"""One row per particle: CSV, Parquet, AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tumble.export.optional import required

if TYPE_CHECKING:
    from pathlib import Path

    from tumble.export.content import Content

__all__ = ["write_anndata", "write_csv", "write_parquet"]

_OF_A_PARTICLE = ("micrograph_id", "source", "label", "predicted", "probability", "novelty", "class")
_PLACES = ("centroid_row_px", "centroid_col_px")


def write_csv(content: Content, path: Path) -> None:
    """Write comma-separated text in UTF-8 with all digits."""
    content.particles.to_csv(path, encoding="utf-8", lineterminator="\n")


def write_parquet(content: Content, path: Path) -> None:
    """Write Parquet, with typed columns."""
    required("pyarrow", "Parquet")
    content.particles.to_parquet(path, engine="pyarrow")


def write_anndata(content: Content, path: Path) -> None:
    """Write AnnData: measurements as X, classes and labels as obs, latent factors and places as obsm."""
    anndata = required("anndata", "AnnData")
    table = content.particles
    latent = sorted((str(n) for n in table if str(n).startswith("latent_")), key=lambda name: int(name.split("_")[1]))
    numeric = [n for n in table.select_dtypes("number").columns if n not in (*_OF_A_PARTICLE, *latent)]
    obs = table[[name for name in _OF_A_PARTICLE if name in table]].copy()
    for name in ("source", "label", "predicted", "class"):
        if name in obs:
            obs[name] = pd.Categorical(obs[name])
    obs.index = obs.index.astype(str)
    obs.index.name = "particle_id"
    data = anndata.AnnData(
        X=table[numeric].to_numpy(np.float32), obs=obs, var=pd.DataFrame(index=pd.Index(list(map(str, numeric))))
    )
    if latent:
        data.obsm["X_latent"] = table[latent].to_numpy(np.float32)
    if set(_PLACES) <= set(table):
        # (x, y), as spatial programs have it
        data.obsm["spatial"] = table[list(_PLACES)[::-1]].to_numpy(np.float64)
    data.uns["tumble"] = _about(content)
    data.write_h5ad(path, compression="gzip")


def _about(content: Content) -> dict[str, Any]:
    micrographs = content.micrographs
    return {
        "model": content.model or "",
        "schema": content.library.schema_version,
        "micrograph_ids": micrographs.index.to_numpy(),
        "content_hashes": micrographs["content_hash"].to_numpy(str),
        "pixel_size_nm": micrographs["pixel_size_nm"].to_numpy(np.float64),
    }
