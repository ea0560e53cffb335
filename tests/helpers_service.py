"""A tiny model behind a running service."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from make_model_fixtures import images

from tumble.service.app import ServiceSettings, create_service
from tumble.service.model import load_served_model

MODEL = Path(__file__).parent / "data" / "model-format-2" / "ssrvae"
SIDE = 16
TOKEN = "a-token-of-the-tests"


def crops(n: int = 5) -> np.ndarray:
    """Grey levels of crops that the model takes, (n, 16, 16)."""
    return np.rint(images(24)[0][:n] * 255).astype(np.uint8)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def upload(content: bytes, name: str = "crops.npy") -> dict:
    return {"files": {"file": (name, content)}}


def make_service(**settings):
    return create_service(load_served_model(MODEL), ServiceSettings(**settings))
