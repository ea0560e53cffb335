"""What the OpenAPI of the service says in words, with examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = [
    "ANSWER_EXAMPLE",
    "CLASSIFY_BODY",
    "DESCRIPTION",
    "KIND",
    "PIXEL_SIZE",
    "POLARITY",
    "REFUSALS",
    "SPLIT_TOUCHING",
    "describe_security",
]

DESCRIPTION = """Classifies particles with a model of tumble.

    curl -F file=@crops.npy http://127.0.0.1:8000/classify
    curl -F file=@image.tif "http://127.0.0.1:8000/classify?kind=micrograph&pixel_size_nm=1.2"

Every refusal is a JSON object whose `detail` is a sentence. A service that has a token wants it with every request:
`Authorization: Bearer TOKEN`.
"""
KIND = (
    "crops: one crop or a stack of them, of the size that the model takes. micrograph: an image to find particles in."
)
PIXEL_SIZE = "Edge of a pixel of the micrograph in nm; what the file says if not given."
POLARITY = "Whether the particles of the micrograph are brighter or darker than the background."
SPLIT_TOUCHING = "Cut clusters of touching particles of the micrograph at their necks."

REFUSALS = {
    400: "The request is no valid form.",
    401: "The token is missing or wrong.",
    403: "From a page of another site.",
    408: "The request arrived too slowly.",
    413: "The request is too large.",
    415: "Neither a form nor JSON.",
    421: "For another host than this one.",
    422: "The image or a parameter cannot be used.",
    503: "Too much is waiting; the header Retry-After says when to ask again.",
}

_NUMBERS: dict[str, Any] = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}

CLASSIFY_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {
                        "type": "string",
                        "format": "binary",
                        "description": "TIFF, PNG, JPEG, BMP, NPY or MRC; with the extra formats also DM3 and DM4.",
                    }
                },
            },
        },
        "application/json": {
            "schema": {
                "description": "Rows of pixels, or images of them, alone or as `images`. Whole numbers are grey levels "
                "from 0 to 255, numbers with a decimal point in the units that the model was fitted to.",
                "anyOf": [
                    _NUMBERS,
                    {"type": "array", "items": _NUMBERS},
                    {
                        "type": "object",
                        "required": ["images"],
                        "properties": {"images": {"anyOf": [_NUMBERS, {"type": "array", "items": _NUMBERS}]}},
                    },
                ],
            },
            "examples": {
                "image": {
                    "summary": "One crop, here of 8 x 8 px",
                    "value": [[20, 20, 20, 20, 20, 20, 20, 20]] * 3
                    + [[20, 20, 20, 200, 200, 20, 20, 20]] * 2
                    + [[20, 20, 20, 20, 20, 20, 20, 20]] * 3,
                },
            },
        },
    },
}

ANSWER_EXAMPLE: dict[str, Any] = {
    "model": "gold-model",
    "particles": [
        {
            "class": "dimer",
            "probability": 0.97,
            "probabilities": {"single": 0.02, "dimer": 0.97, "cluster": 0.01},
            "novelty": 0.3,
            "pose": {
                "angle_rad": 1.2,
                "angle_std_rad": 0.1,
                "shift_row_px": 0.4,
                "shift_col_px": -0.2,
                "scale": 1.0,
            },
            "latent": [0.7, -1.1],
            "box": {
                "row_px": 104.2,
                "col_px": 55.0,
                "first_row_px": 95,
                "first_col_px": 49,
                "height_px": 18,
                "width_px": 12,
                "touches_border": False,
            },
            "size": {
                "area_px": 151.0,
                "equivalent_diameter_px": 13.9,
                "feret_max_px": 18.6,
                "area_nm2": 217.4,
                "equivalent_diameter_nm": 16.6,
                "feret_max_nm": 22.3,
            },
        }
    ],
    "image": {"height_px": 1024, "width_px": 1280, "pixel_size_nm": 1.2, "notes": []},
}


def describe_security(app: FastAPI, *, with_token: bool) -> None:
    """Say in the OpenAPI that every route wants the token."""
    if not with_token:
        return
    make = app.openapi

    def openapi() -> dict[str, Any]:
        schema = make()
        schema.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"token": []}]
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
