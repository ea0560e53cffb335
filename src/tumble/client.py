"""Ask a running ``tumble serve`` from Python: arrays or files in, a table out. Needs httpx (extra ``serve``).

>>> from tumble.client import Client
>>> client = Client("http://127.0.0.1:8000")  # nothing is sent yet
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pandas as pd

from tumble.errors import ConfigError, DataError, InputFileError, TumbleError

try:
    import httpx
except ImportError as error:
    raise ConfigError('The client needs the package httpx: pip install "tumble[serve]".') from error

if TYPE_CHECKING:
    import os
    from types import TracebackType

    import numpy.typing as npt

__all__ = ["Classified", "Client", "ServiceError"]


class ServiceError(TumbleError):
    """The service refused a request, or cannot be reached.

    Attributes
    ----------
    status : int or None
        HTTP status; None where there was no answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Classified:
    """What the service said.

    Parameters
    ----------
    model : str
        Name of the model.
    classes : tuple of str
        In the order of `probabilities`.
    probabilities : ndarray of shape (n, K)
        Rows sum to 1.
    table : DataFrame of n rows
        `predicted`, `probability`, `novelty`, `angle_rad`, `angle_std_rad`, `shift_row_px`, `shift_col_px`, `scale`,
        `latent_0` ...; of a micrograph also place and size of each particle. What the model does not say is absent.
    image : dict or None
        Of a micrograph: `height_px`, `width_px`, `pixel_size_nm` and `notes`.
    """

    model: str
    classes: tuple[str, ...]
    probabilities: npt.NDArray[np.float64]
    table: pd.DataFrame
    image: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.table)


class Client:
    """A running service.

    Parameters
    ----------
    url : str, default="http://127.0.0.1:8000"
        Where it is.
    token : str, optional
        Its token, where it has one.
    timeout_s : float, default=60
        How long to wait for an answer.
    retries : int, default=3
        How often a request is sent again where the service is busy.

    Examples
    --------
    >>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
    ...     client.classify(crops).table
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        token: str | None = None,
        *,
        timeout_s: float = 60.0,
        retries: int = 3,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"url={url!r}: must begin with http:// or https://.")
        self.url, self._retries = url.rstrip("/"), retries
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def classify(self, images: npt.ArrayLike | str | os.PathLike[str]) -> Classified:
        """Classify crops.

        Parameters
        ----------
        images : array-like of shape (H, W), (n, H, W) or (n, C, H, W), or path
            uint8 or float crops of the size that the model takes, or a file with them.

        Returns
        -------
        Classified

        Raises
        ------
        ServiceError
            If the service refuses them or cannot be reached.
        InputFileError
            If the file cannot be read.
        DataError
            If the array is none of numbers.
        """
        return self._classified(images, {})

    def classify_micrograph(
        self,
        image: npt.ArrayLike | str | os.PathLike[str],
        *,
        pixel_size_nm: float | None = None,
        polarity: Literal["auto", "bright", "dark", "both"] | None = None,
        split_touching: bool | None = None,
    ) -> Classified:
        """Find the particles of a micrograph and classify them.

        Parameters
        ----------
        image : array-like of shape (H, W), or path
            The micrograph.
        pixel_size_nm : float, optional
            Edge of a pixel in nm; what the file says if not given.
        polarity : {"auto", "bright", "dark", "both"}, optional
            Whether particles are brighter or darker than the background; what the service was started with if not
            given.
        split_touching : bool, optional
            Whether clusters are cut; likewise.

        Returns
        -------
        Classified

        Raises
        ------
        ServiceError, InputFileError, DataError
            As for :meth:`classify`.
        """
        given = {"pixel_size_nm": pixel_size_nm, "polarity": polarity, "split_touching": split_touching}
        query = {name: str(value).lower() for name, value in given.items() if value is not None}
        return self._classified(image, {"kind": "micrograph", **query})

    def model(self) -> dict[str, Any]:
        """Which model answers: name, kind, classes and the size of the crops that it takes."""
        return self._answer("GET", "/model").json()

    def health(self) -> dict[str, Any]:
        """Whether the service works, and how much waits."""
        return self._answer("GET", "/health").json()

    def _classified(self, images: npt.ArrayLike | str | os.PathLike[str], query: dict[str, str]) -> Classified:
        name, content = _as_file(images)
        answer = self._answer("POST", "/classify", params=query, files={"file": (name, content)}).json()
        particles = answer["particles"]
        classes = tuple(particles[0]["probabilities"])
        probabilities = np.array([[row["probabilities"][name] for name in classes] for row in particles])
        table = pd.DataFrame([_flat(row) for row in particles])
        return Classified(answer["model"], classes, probabilities, table, answer["image"])

    def _answer(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        files: dict[str, tuple[str, bytes]] | None = None,
    ) -> httpx.Response:
        response = self._send(method, path, params, files)
        for _ in range(self._retries):
            wait = response.headers.get("Retry-After", "")
            if response.status_code != 503 or not wait.isdigit():
                break
            time.sleep(min(int(wait), 30))
            response = self._send(method, path, params, files)
        if response.is_success:
            return response
        try:
            detail = str(response.json()["detail"])
        except (ValueError, KeyError, TypeError):
            detail = response.text[:200] or response.reason_phrase
        raise ServiceError(f"{self.url}{path}: {detail}", response.status_code)

    def _send(
        self, method: str, path: str, params: dict[str, str] | None, files: dict[str, tuple[str, bytes]] | None
    ) -> httpx.Response:
        try:
            return self._http.request(method, path, params=params, files=files)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise ServiceError(f"{self.url}: no answer ({reason}). Does `tumble serve` run there?") from error


def _as_file(images: npt.ArrayLike | str | os.PathLike[str]) -> tuple[str, bytes]:
    """Give name and content of the file to send; arrays as NPY."""
    if isinstance(images, str | Path) or hasattr(images, "__fspath__"):
        path = Path(images)  # pyright: ignore[reportArgumentType]
        try:
            return path.name, path.read_bytes()
        except OSError as error:
            raise InputFileError(f"{path}: cannot be read ({error.strerror or error}).") from error
    array = np.asarray(images)
    if array.dtype.kind not in "buif":
        raise DataError(f"images: must be numbers, got {array.dtype}.")
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return "array.npy", stream.getvalue()


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """One particle as a row of the table."""
    flat: dict[str, Any] = {"predicted": row["class"], "probability": row["probability"]}
    if row["novelty"] is not None:
        flat["novelty"] = row["novelty"]
    flat |= row["pose"] or {}
    flat |= {f"latent_{i}": value for i, value in enumerate(row["latent"] or ())}
    flat |= row.get("box") or {}
    flat |= {name: value for name, value in (row.get("size") or {}).items() if value is not None}
    return flat
