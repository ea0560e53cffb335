"""What is named in an address and may not exist: such a page is not found, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import HTTPException, Query

from tumble.errors import LibraryError

if TYPE_CHECKING:
    from tumble.library import Library
    from tumble.types import ModelRecord

__all__ = ["Name", "known_model"]

#: A name in an address; empty is none.
Name = Annotated[str | None, Query(max_length=200)]


def known_model(library: Library, name: str | None) -> ModelRecord:
    """Return the model of this name, or of the newest where it is None.

    Raises
    ------
    HTTPException
        404 where there is none, with a sentence that names those that there are.
    """
    try:
        return library.model_record(name or None)
    except LibraryError as error:
        raise HTTPException(404, str(error)) from error
