"""The web service: crops and micrographs in, classes, poses and latent factors out."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

from tumble._version import __version__
from tumble.errors import ConfigError, TumbleError

try:
    import anyio
    from fastapi import FastAPI, Query, Request, Response
    from fastapi.exceptions import RequestValidationError
    from pydantic_core import to_json
    from starlette.datastructures import UploadFile
    from starlette.exceptions import HTTPException

    from tumble.app.security import Guard, Security
    from tumble.service.metrics import METRICS_MEDIA_TYPE, ServiceMetrics
    from tumble.service.schemas import Classification, Health, ModelInfo, Problem
except ImportError as error:
    raise ConfigError(f'The service needs the package {error.name}: pip install "tumble[serve]".') from error

from tumble.pipeline.extraction import ExtractionOptions, find_particles
from tumble.service import documentation as doc
from tumble.service.answers import described_image, described_particles, joined_answers, places
from tumble.service.batching import Batcher, Busy
from tumble.service.guard import BodyLimit, BodyLimits, HangUp, TooLarge
from tumble.service.images import (
    InputLimits,
    crops_from_file,
    crops_from_json,
    is_quickly_read,
    micrograph_from_file,
    micrograph_from_json,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import numpy.typing as npt

    from tumble.service.model import Answers, ServedModel
    from tumble.types import Micrograph, Particles

__all__ = ["ServiceSettings", "create_service"]

logger = logging.getLogger(__name__)

#: Bytes of JSON: as Python's lists, numbers take some twenty times the room that they have in text.
MAX_JSON_BYTES = 16 * 2**20

#: Images that are decoded at a time, and micrographs whose particles are found at a time.
N_DECODING, N_EXTRACTING = 4, 1

#: Micrographs that may wait for their turn.
MAX_WAITING_MICROGRAPHS = 8


@dataclass(frozen=True)
class ServiceSettings:
    """How a service runs.

    Parameters
    ----------
    host : str
        Address that it is bound to. Any but that of this machine itself needs a token.
    token : str or None
        What each request must carry as ``Authorization: Bearer TOKEN``.
    max_batch : int
        Crops that are classified together.
    max_wait_s : float
        How long a crop waits for others.
    max_waiting : int
        Crops that may wait; more are refused with status 503.
    body, input : BodyLimits, InputLimits
        How much is taken.
    extraction : ExtractionOptions
        How particles are found in micrographs; the size of the crops is that of the model.
    """

    host: str = "127.0.0.1"
    token: str | None = None
    max_batch: int = 256
    max_wait_s: float = 0.002
    max_waiting: int = 8192
    body: BodyLimits = field(default_factory=BodyLimits)
    input: InputLimits = field(default_factory=InputLimits)
    extraction: ExtractionOptions = field(default_factory=ExtractionOptions)


@dataclass(frozen=True)
class _FindOptions:
    """What a request may say about its micrograph."""

    pixel_size_nm: float | None
    polarity: Literal["auto", "bright", "dark", "both"] | None
    split_touching: bool | None


class _Service:
    """The parts of a running service."""

    def __init__(self, model: ServedModel, settings: ServiceSettings) -> None:
        self.model, self.settings = model, settings
        self.started_s = time.monotonic()
        self.metrics = ServiceMetrics(lambda: self.batcher.n_waiting)
        self.batcher = Batcher(
            model.predict,
            max_batch=settings.max_batch,
            max_wait_s=settings.max_wait_s,
            max_waiting=settings.max_waiting,
            on_batch=self.metrics.count_batch,
        )
        self._decoding = anyio.CapacityLimiter(N_DECODING)
        self._extracting = anyio.CapacityLimiter(N_EXTRACTING)
        self._n_micrographs = 0

    async def crops(self, request: Request) -> dict[str, Any]:
        """Classify the crops of a request."""
        shape, limits = self.model.image_shape, self.settings.input
        crops = await self._read(
            request,
            lambda upload: crops_from_file(upload.file, upload.filename or "", shape, limits),
            lambda body: crops_from_json(body, shape, limits),
            self._decoding,
            at_once=is_quickly_read,
        )
        return {"model": self.model.name, "particles": await self._classified(crops), "image": None}

    async def micrograph(self, request: Request, find: _FindOptions) -> dict[str, Any]:
        """Find the particles of the micrograph of a request, and classify them."""
        if self.model.image_shape[0] != 1 or self.model.image_shape[1] != self.model.image_shape[2]:
            raise ConfigError("kind: this model takes no square grey crops, as are cut out of micrographs; send crops.")
        if self._n_micrographs >= MAX_WAITING_MICROGRAPHS:
            raise Busy(10)
        self._n_micrographs += 1
        try:
            limits, size_nm = self.settings.input, find.pixel_size_nm
            micrograph, particles = await self._read(
                request,
                lambda upload: self._found(
                    micrograph_from_file(upload.file, upload.filename or "", limits, pixel_size_nm=size_nm), find
                ),
                lambda body: self._found(micrograph_from_json(body, limits, pixel_size_nm=size_nm), find),
                self._extracting,
            )
        finally:
            self._n_micrographs -= 1
        rows = await self._classified(particles.crops[:, None])
        located = [row | place for row, place in zip(rows, places(particles), strict=True)]
        return {"model": self.model.name, "particles": located, "image": described_image(micrograph)}

    def _found(self, micrograph: Micrograph, find: _FindOptions) -> tuple[Micrograph, Particles]:
        options = replace(self.settings.extraction, crop_size=self.model.image_shape[1])
        if find.polarity is not None:
            options = replace(options, polarity=find.polarity)
        if find.split_touching is not None:
            options = replace(options, split_touching=find.split_touching)
        return micrograph, find_particles(micrograph, options, None)

    async def _read(
        self,
        request: Request,
        from_file: Callable[[UploadFile], Any],
        from_json: Callable[[bytes], Any],
        limiter: anyio.CapacityLimiter,
        *,
        at_once: Callable[[IO[bytes], str, int | None], bool] | None = None,
    ) -> Any:
        """Read the body of a request as what it is, in a thread unless it is read in no time."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            body = await _json_body(request)
            return await anyio.to_thread.run_sync(functools.partial(from_json, body), limiter=limiter)
        if kind != "multipart/form-data":
            sentence = "Send an image as multipart/form-data in the field 'file', or numbers as application/json."
            raise HTTPException(415, sentence)
        async with request.form(max_files=1, max_fields=8) as form:
            upload = form.get("file")
            if not isinstance(upload, UploadFile):
                raise HTTPException(422, "file: the form has no image of this name. Send it in the field 'file'.")
            if at_once is not None and at_once(upload.file, upload.filename or "", upload.size):
                return from_file(upload)
            return await anyio.to_thread.run_sync(functools.partial(from_file, upload), limiter=limiter)

    async def _classified(self, crops: npt.NDArray[Any]) -> list[dict[str, Any]]:
        futures = self.batcher.submit(crops)
        answers: list[Answers] = await asyncio.gather(*map(asyncio.wrap_future, futures))
        rows = described_particles(joined_answers(answers), self.model.classes)
        self.metrics.count_particles(Counter(row["class"] for row in rows))
        return rows

    def health(self) -> Health:
        """Say whether crops are classified."""
        return Health(
            status="ok" if self.batcher.is_alive else "failed",
            model=self.model.name,
            uptime_s=round(time.monotonic() - self.started_s, 3),
            waiting=self.batcher.n_waiting,
        )

    def describe_model(self) -> ModelInfo:
        """Say which model answers."""
        model = self.model
        channels, height, width = model.image_shape
        return ModelInfo(
            name=model.name,
            kind="full" if model.kind == "full" else "classifier",
            classes=list(model.classes),
            channels=channels,
            height_px=height,
            width_px=width,
            fingerprint=model.fingerprint,
            max_crops=self.settings.input.max_crops,
            tumble=__version__,
        )


def create_service(model: ServedModel, settings: ServiceSettings | None = None) -> FastAPI:
    """Make the web service of a model.

    Parameters
    ----------
    model : ServedModel
        From :func:`tumble.service.model.load_served_model`.
    settings : ServiceSettings, optional
        How it runs.

    Returns
    -------
    FastAPI
        An ASGI application; its thread ends when the application is shut down.

    Raises
    ------
    ConfigError
        If a setting has a value that it cannot have: without a token, only this machine may be served.
    """
    settings = settings or ServiceSettings()
    # Without a page there is nothing that a forged request could change: a token per page (CSRF) is not asked for.
    security = Security(settings.host, settings.token, csrf=False, max_body_bytes=settings.body.max_bytes)
    service = _Service(model, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await anyio.to_thread.run_sync(service.batcher.close)

    # Without the interactive pages, which load their scripts from the network.
    app = FastAPI(
        title="tumble serve",
        version=__version__,
        description=doc.DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    _add_routes(app, service)
    _add_error_handlers(app)
    _add_counting(app, service.metrics)
    # The last that is added is the first to be asked.
    app.add_middleware(BodyLimit, limits=settings.body)  # pyright: ignore[reportArgumentType]
    app.add_middleware(Guard, security=security)
    app.add_middleware(HangUp)  # pyright: ignore[reportArgumentType]
    doc.describe_security(app, with_token=settings.token is not None)
    return app


def _add_routes(app: FastAPI, service: _Service) -> None:
    refusals: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem, "description": text} for status, text in doc.REFUSALS.items()
    }

    @app.post(
        "/classify",
        response_model=Classification,
        responses={200: {"content": {"application/json": {"example": doc.ANSWER_EXAMPLE}}}, **refusals},
        openapi_extra={"requestBody": doc.CLASSIFY_BODY},
        summary="Classify crops, or the particles of a micrograph",
    )
    async def classify(
        request: Request,
        kind: Annotated[Literal["crops", "micrograph"], Query(description=doc.KIND)] = "crops",
        pixel_size_nm: Annotated[
            float | None, Query(gt=0, le=1e6, allow_inf_nan=False, description=doc.PIXEL_SIZE, examples=[1.2])
        ] = None,
        polarity: Annotated[Literal["auto", "bright", "dark", "both"] | None, Query(description=doc.POLARITY)] = None,
        split_touching: Annotated[bool | None, Query(description=doc.SPLIT_TOUCHING)] = None,
    ) -> Response:
        if kind == "micrograph":
            find = _FindOptions(pixel_size_nm, polarity, split_touching)
            answer = await service.micrograph(request, find)
        else:
            answer = await service.crops(request)
        # Written at once: checking thousands of particles against the description takes longer than classifying them.
        return Response(to_json(answer, inf_nan_mode="null"), media_type="application/json")

    common: dict[int | str, dict[str, Any]] = {status: refusals[status] for status in (401, 421)}

    @app.get("/model", responses=common, summary="Which model answers, and what it takes")
    async def model() -> ModelInfo:
        return service.describe_model()

    @app.get(
        "/health",
        responses={503: {"model": Health, "description": "It does not."}, **common},
        summary="Whether it works",
    )
    async def health(response: Response) -> Health:
        state = service.health()
        response.status_code = 200 if state.status == "ok" else 503
        return state

    @app.get("/metrics", responses=common, response_class=Response, summary="Counters in Prometheus's text format")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=METRICS_MEDIA_TYPE)


async def _json_body(request: Request) -> bytes:
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > MAX_JSON_BYTES:
            raise TooLarge(f"JSON of more than {MAX_JSON_BYTES >> 20} MB is not taken; send a file, such as NPY.")
        pieces.append(piece)
    return b"".join(pieces)


def _problem(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json({"detail": sentence}), status, headers, media_type="application/json")


def _add_error_handlers(app: FastAPI) -> None:
    """Answer every error with a sentence."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return _problem(422, f"{first['loc'][-1]}: {first['msg']}.")

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        return _problem(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(Busy)
    async def busy(_: Request, error: Busy) -> Response:
        return _problem(503, str(error), {"Retry-After": str(error.retry_after_s)})

    @app.exception_handler(TumbleError)
    async def unusable(_: Request, error: TumbleError) -> Response:
        return _problem(422, " ".join(str(error).split()))

    @app.exception_handler(MemoryError)
    async def full(_: Request, error: MemoryError) -> Response:
        logger.error("The memory is full: %s", error)
        return _problem(503, "The memory of the service is full; send a smaller image.", {"Retry-After": "10"})

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return _problem(500, "This is a bug in tumble; the log of the service says more.")


def _add_counting(app: FastAPI, metrics: ServiceMetrics) -> None:
    routes = {"/classify", "/model", "/health", "/metrics", "/openapi.json"}

    class Counting:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await self._inner(scope, receive, send)
                return
            started, status = time.perf_counter(), 500

            async def noted(message: Any) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await self._inner(scope, receive, noted)
            finally:
                # Other paths under one name: a scan of thousands of them would make as many counters.
                route = scope["path"] if scope["path"] in routes else "other"
                metrics.count_request(route, status, time.perf_counter() - started)

    app.add_middleware(Counting)
