"""What fixes the shape of a model: sizes, and the choices among its parts."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ANGLE_POSTERIORS",
    "CLASSIFIERS",
    "DECODERS",
    "ENCODERS",
    "FRAMES",
    "INVARIANCES",
    "LIKELIHOODS",
    "ModelConfig",
]

INVARIANCES = ("rotation", "translation", "scale")
LIKELIHOODS = ("gaussian", "bernoulli", "continuous_bernoulli")
ENCODERS = ("convolutional", "dense")
CLASSIFIERS = ("fast", "fine")
DECODERS = ("template", "coordinate")
ANGLE_POSTERIORS = ("mixture", "normal", "von_mises", "projected")
FRAMES = ("object", "grid")


@dataclass(frozen=True)
class ModelConfig:
    """Everything that fixes the shape of the networks.

    Parameters
    ----------
    n_classes : int
        Number of classes K; 0 leaves y out (VAE, rVAE).
    image_shape : (int, int, int)
        Channels, height and width.
    latent_dim : int
        Dimension of z.
    invariances : tuple of str
        Which parts of the pose are latent: any of "rotation", "translation", "scale"; none gives VAE and ss-VAE.
    likelihood : {"gaussian", "bernoulli", "continuous_bernoulli"}
        p(x | ...): Normal with one width, or (continuous) Bernoulli for images in [0, 1].
    sigma : float or None
        Width of the Normal likelihood in units of x; None learns it.
    translation_prior : float
        Standard deviation of the prior on the shift, as a fraction of the longer side of the image ("object" frame) or
        of half of it ("grid" frame, where the image spans [-1, 1]).
    scale_prior : float
        Standard deviation of the prior on log(scale) ("object" frame), or on the factor of the grid ("grid" frame).
    angle_posterior : {"mixture", "normal", "von_mises", "projected"}
        Family of q(angle | x, y), see :mod:`tumble.model.angles`.
    angle_prior_rad : float
        Standard deviation of the prior of the "normal" posterior, which is N(0, `angle_prior_rad`).
    angle_prior_concentration : float
        Concentration of the von Mises prior about 0 of the other posteriors; 0 is the uniform prior.
    encoder : {"convolutional", "dense"}
        Networks of q(y | x) and q(z, pose | x, y).
    decoder : {"template", "coordinate"}
        One canonical image that is resampled, or a network of each pixel's position.
    frame : {"object", "grid"}
        Whether shift and scale are those of the object as seen, or, as published, those of the coordinate grid after
        it was turned. It is the same family of images, but the independence of angle and shift means another prior.
    standardise : bool
        Whether networks see, and the decoder draws, pixels in units of their spread; as published they are raw.
    encoder_channels : tuple of int
        Channels per stage of the convolutional networks.
    classifier : {"fast", "fine"}
        Convolutions of q(y | x): :class:`tumble.model.nets.ConvTrunk` or :class:`tumble.model.nets.FineTrunk`.
    symmetry : {"none", "rotations", "rotations+mirror"}
        Group under which the fine classifier is invariant by construction.
    extra_convolutions : int
        Unstrided convolutions at the end of the fast classifier: more of the object in view at once, which is what
        noisy images need.
    radius : bool
        Whether the classifier sees how far each place is from the centre.
    hidden_layer : bool
        Whether a dense layer lies between the pooled features and the logits. With many features and few labels it is
        better left out.
    fold : bool
        Whether the fast classifier begins by folding blocks of 2 x 2 px into channels, which is cheap, and coarse.
    hidden : int
        Width of dense layers.
    """

    n_classes: int
    image_shape: tuple[int, int, int]
    latent_dim: int = 2
    invariances: tuple[str, ...] = ("rotation", "translation")
    likelihood: str = "gaussian"
    sigma: float | None = None
    translation_prior: float = 0.1
    scale_prior: float = 0.2
    angle_posterior: str = "mixture"
    angle_prior_rad: float = 1.0
    angle_prior_concentration: float = 0.0
    encoder: str = "convolutional"
    decoder: str = "template"
    frame: str = "object"
    standardise: bool = True
    encoder_channels: tuple[int, ...] = (32, 64)
    classifier: str = "fast"
    symmetry: str = "none"
    extra_convolutions: int = 1
    radius: bool = True
    hidden_layer: bool = True
    fold: bool = True
    hidden: int = 128

    @property
    def side(self) -> int:
        """Longer side of the image in px."""
        return max(self.image_shape[1:])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.image_shape[1], self.image_shape[2]

    @property
    def n_components(self) -> int:
        """Number of terms in the sum over classes: K, or 1 where there are no classes."""
        return max(1, self.n_classes)

    @property
    def shift_unit_px(self) -> float:
        """Standard deviation of the prior on the shift in px."""
        return self.translation_prior * (self.side if self.frame == "object" else (self.side - 1) / 2)
