"""Half precision and compiled networks, for a model in training.

Only the networks are touched: distributions, divergences and likelihoods stay in float32, where eight bits of mantissa
would not do.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from typing import TYPE_CHECKING, Any

import torch

from tumble.errors import ConfigError
from tumble.model.dense import CoordinateDecoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from tumble.fit.config import FitConfig
    from tumble.model.ssrvae import SSRVAE

__all__ = ["PRECISIONS", "accelerated", "replace_method"]

log = logging.getLogger(__name__)

PRECISIONS = ("float32", "bfloat16")


@contextlib.contextmanager
def accelerated(model: SSRVAE, settings: FitConfig) -> Iterator[None]:
    """Run the networks of a model compiled, or in bfloat16, until the context ends.

    Parameters
    ----------
    model : SSRVAE
        Its methods that run the networks are replaced on this instance.
    settings : FitConfig
        Its `compile` and `precision`.

    Yields
    ------
    None
    """
    if settings.precision not in PRECISIONS:
        raise ConfigError(f"precision={settings.precision!r}: expected one of {', '.join(map(repr, PRECISIONS))}.")
    with contextlib.ExitStack() as stack:
        for owner, name in ((model, "classify"), (model, "features"), (model.decoder, "forward")):
            if settings.compile:
                replace_method(stack, owner, name, _compiled(getattr(owner, name)))
            # A decoder of positions is left as it is: eight bits would place a pixel only to a tenth. In its streamed
            # likelihood the layers behind the positions may do with them.
            if settings.precision == "bfloat16" and not isinstance(owner, CoordinateDecoder):
                replace_method(stack, owner, name, _in_bfloat16(getattr(owner, name)))
        if settings.precision == "bfloat16" and isinstance(model.decoder, CoordinateDecoder):
            name = "weighted_log_likelihood"
            half = functools.partial(model.decoder.weighted_log_likelihood, dtype=torch.bfloat16)
            replace_method(stack, model.decoder, name, half)
        yield


def replace_method(stack: contextlib.ExitStack, owner: nn.Module, name: str, function: Callable[..., Any]) -> None:
    """Replace a method on one module until a stack of contexts is left."""
    before = vars(owner).get(name)
    setattr(owner, name, function)
    if before is None:
        stack.callback(delattr, owner, name)
    else:
        stack.callback(setattr, owner, name, before)


def _in_bfloat16(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(function)
    def run(*args: Any) -> Tensor:
        with torch.autocast(args[0].device.type, dtype=torch.bfloat16):
            result = function(*args)
        return result.float()

    return run


def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compile at the first call; where there is no compiler, say so once and run as before."""
    # Imported here: it takes a second, which only those who compile need to wait.
    from torch._dynamo.exc import TorchDynamoException

    fast: Callable[..., Tensor] | None = torch.compile(function, dynamic=True)

    @functools.wraps(function)
    def run(*args: Any) -> Tensor:
        nonlocal fast
        if fast is not None:
            try:
                return fast(*args)
            except TorchDynamoException as error:
                log.warning("compile=True: torch cannot compile here, training goes on without (%s)", _first(error))
                fast = None
        return function(*args)

    return run


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
