"""The semi-supervised model with the scikit-learn face: arrays and a few labels in, classes, pose and factors out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score

from tumble.estimators.base import FitOptions, ImageModel, stacked
from tumble.estimators.folding import FoldedClassifier, view_angles
from tumble.estimators.settings import check_params, check_unit_range, class_prior, model_config
from tumble.fit.batches import TrainingData
from tumble.types import UNLABELLED
from tumble.validation import as_labels, check_labels, check_number, encode_labels

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from tumble.fit import EpochReport

__all__ = ["UNKNOWN", "SSRVAEClassifier"]

#: What `predict(X, reject=...)` calls an object of no known class, where classes are strings.
UNKNOWN = "unknown"


class SSRVAEClassifier(ClassifierMixin, ImageModel):
    """Semi-supervised classifier of objects that lie at any angle and place, with pose and latent factors.

    A semi-supervised rotationally (and translationally) invariant variational autoencoder: q(y | x) classifies,
    q(z, angle, shift | x, y) finds the pose and the remaining factors of variation, and a decoder draws a canonical
    image that is placed at that pose. It learns from few labels and all unlabelled images, and treats the disorder of
    the pose as known: labelled images are seen at all poses, and an image must keep its class, and change its pose
    by just so much, when it is turned and shifted.

    Parameters
    ----------
    latent_dim : int, default=2
        Dimension of z.
    invariances : tuple of str, default=("rotation", "translation")
        Parts of the pose that objects are free in: any of "rotation", "translation", "scale"; none gives the ss-VAE.
        "reflection" says that mirror images are of the same class; it is no part of the pose.
    method : {"default", "paper"}, default="default"
        "paper" is the published architecture, objective and schedule, and nothing else: of the parameters below only
        `likelihood`, `sigma`, `angle_prior_rad`, `translation_prior`, `max_epochs`, `batch_size`, `learning_rate`,
        `hidden`, `class_prior`, `class_floor`, `pixel_fraction`, `device` and `random_state` apply.
    likelihood : {"gaussian", "bernoulli", "continuous_bernoulli"} or None, default=None
        p(x | ...). The Bernoulli kinds need pixels in [0, 1]. None is "gaussian", and "bernoulli" for the paper's.
    sigma : float or None, default=None
        Width of the Gaussian likelihood in units of X; None learns it.
    encoder : {"convolutional", "dense"}, default="convolutional"
        Networks that classify and infer.
    classifier : {"fast", "detailed", "fine"}, default="fast"
        Convolutions that classify. "detailed" begins at half resolution where "fast" begins at a quarter; a step costs
        two to five times as much. "fine" also is invariant to quarter turns by construction where "rotation" is among
        the invariances (and to mirror images with "reflection"); a step costs ten to twenty times that of "fast".
    predict_views : int, default=1
        Classes are averaged over this many turned copies of an image at prediction, at as many times the cost. They
        are spread over the circle, or over a quarter of it where the classifier is invariant to quarter turns.
    decoder : {"template", "coordinate"}, default="template"
        How images are drawn: one canonical image that is placed by resampling, or a network that is evaluated at
        each pixel of the placed grid (slow; as published).
    angle_posterior : {"mixture", "normal", "von_mises", "projected"}, default="mixture"
        Family of q(angle | x, y), see :mod:`tumble.model.angles`.
    angle_prior_rad : float or None, default=None
        Width w of the prior of the angle: N(0, w) rad for "normal" and the paper's method, and for the others a von
        Mises density about 0 of concentration 1 / w**2. None is N(0, 1) rad and the uniform density. Labelled images
        are seen turned by up to `rotation_range_rad` in training, so an informed prior belongs with a small one.
    rotation_range_rad : float, default=pi
        Objects lie within plus or minus this angle of upright. With less than half a turn, images that are alike but
        for their angle (6 and 9) stay apart.
    labelled_orientation : {"aligned", "arbitrary"}, default="aligned"
        Whether the labelled objects lie upright and centred, so that they define angle 0, or lie anyhow. With
        "arbitrary", angles are relative to a canonical orientation that each class finds for itself.
    translation_prior : float, default=0.1
        Expected displacement as a fraction of the longer side of the image.
    scale_jitter, shear_jitter, intensity_jitter : float, default=0.2, 0.2, 0.1
        Small changes that keep the class: logarithm of the magnification, tangent of the shear, gain.
    degradation : float, default=0.0
        Strength of simulated noise, specks, covers and blur in training, for images that are worse than those at hand;
        1 is up to four standard deviations of the pixels.
    max_epochs : int or None, default=None
        Passes over all images; None makes about 1,000 optimiser steps (100 epochs for the paper's method).
    pretrain_epochs : int, default=0
        Passes over all images, before the training and without labels, of an rVAE whose convolutions the classifier
        begins with. Pays where the images are many and show far more variety than the labelled ones (natural objects);
        24 to 64 are a good start. 0 leaves it out; needs `encoder="convolutional"`.
    batch_size : int or None, default=None
        Images per step without regard to labels; None is 96 (64 for the paper's method).
    labelled_batch_size : int, default=64
        Labelled images per step.
    learning_rate : float or None, default=None
        Of AdamW, 2e-3 by default; the rate warms up, then falls along a cosine to 0. (Adam, 5e-4, constant for the
        paper's method.)
    weight_decay : float, default=1e-3
        Of AdamW.
    ema_decay : float, default=0.995
        Share of the past, per step, in the running mean of the weights, which is the teacher of the pseudo-labels and
        the model in the end. It is reached gradually: the mean covers a tenth of the steps so far until it covers
        1 / (1 - ema_decay). 0 takes the weights as they are, as the paper's method does.
    kl_weight : float, default=1.0
        Weight of the Kullback-Leibler terms (beta); reached over the first third of the steps.
    pseudo_label_threshold : float, default=0.95
        Least probability at which an unlabelled image's own class is taken as its label.
    pseudo_label_weight, generative_weight, pose_weight : float, default=1.0
        Weights of the consistency of the class, of the evidence bounds, and of the consistency of the pose.
    class_prior : "learned", array-like of shape (n_classes,) or None, default=None
        p(y), in the order of `classes_`; None is uniform, "learned" follows the unlabelled images.
    class_floor : float or None, default=None
        Classes of smaller q(y | x) are left out of the sum over classes of unlabelled images; None is 0.01 (0, all
        classes, for the paper's method, where 1e-4 saves half of the time or more once q(y | x) is sharp).
    pixel_fraction : float, default=1.0
        Of the paper's method: share of the pixels, spread evenly from a random start for each image and step, that
        stand for all in the likelihood. A sixteenth takes a tenth of the time; the gradient is noisier, with the same
        expectation.
    encoder_channels : tuple of int, default=(32, 64)
        Channels per stage of the convolutional networks; the last value serves every further stage.
    hidden : int, default=128
        Width of the dense layers.
    calibrate : bool, default=True
        Whether a fifth of the labels (at most 50 of a class) is kept from the classifier to fit the temperature of the
        probabilities, where every class has at least 20; the published method never does.
    novelty_score : bool, default=True
        Whether to learn, after the training, what `novelty` and `reject` need; it takes some seconds.
    compile : bool, default=False
        Whether to compile the networks with :func:`torch.compile`; pays off in long runs on a GPU.
    precision : {"float32", "bfloat16"}, default="float32"
        Arithmetic of the networks in training; bfloat16 is for hardware that has it.
    device : str, default="auto"
        "auto" is a GPU where torch sees one, otherwise the CPU; or the name of a torch device.
    random_state : int, RandomState instance or None, default=None
        Seeds everything that is drawn. Two fits with one seed on one machine agree.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Classes in the order of `predict_proba`.
    class_prior_ : ndarray of shape (n_classes,)
        p(y), as given or learned.
    history_ : dict of str to list of float
        Training curves, one value per epoch; those of a pre-training are not kept.
    n_iter_ : int
        Number of epochs.
    stop_reason_ : str
        Why training ended.
    fit_seconds_ : float
        Wall time of the fit.
    model_ : SSRVAE
        The fitted module.

    References
    ----------
    .. [1] M. A. Ziatdinov et al., "Semi-supervised learning of images with strong rotational disorder: assembling
           nanoparticle libraries", Digital Discovery, 2024, https://doi.org/10.1039/d3dd00196b

    Examples
    --------
    >>> import numpy as np
    >>> from tumble import SSRVAEClassifier
    >>> from tumble.datasets import make_cards
    >>> upright = make_cards(5, angle=5, translation=0, random_state=0)
    >>> tumbled = make_cards(30, angle=180, random_state=1)
    >>> X = np.concatenate([upright.X, tumbled.X])
    >>> y = np.concatenate([upright.y, np.full(len(tumbled.y), -1)])
    >>> model = SSRVAEClassifier(max_epochs=1, random_state=0).fit(X, y)
    >>> model.predict_proba(tumbled.X).shape
    (120, 4)
    >>> model.transform(tumbled.X).shape
    (120, 2)
    """

    def __init__(
        self,
        latent_dim: int = 2,
        invariances: Sequence[str] = ("rotation", "translation"),
        *,
        method: str = "default",
        likelihood: str | None = None,
        sigma: float | None = None,
        encoder: str = "convolutional",
        classifier: str = "fast",
        predict_views: int = 1,
        decoder: str = "template",
        angle_posterior: str = "mixture",
        angle_prior_rad: float | None = None,
        rotation_range_rad: float = math.pi,
        labelled_orientation: str = "aligned",
        translation_prior: float = 0.1,
        scale_jitter: float = 0.2,
        shear_jitter: float = 0.2,
        intensity_jitter: float = 0.1,
        degradation: float = 0.0,
        max_epochs: int | None = None,
        pretrain_epochs: int = 0,
        batch_size: int | None = None,
        labelled_batch_size: int = 64,
        learning_rate: float | None = None,
        weight_decay: float = 1e-3,
        ema_decay: float = 0.995,
        kl_weight: float = 1.0,
        pseudo_label_threshold: float = 0.95,
        pseudo_label_weight: float = 1.0,
        generative_weight: float = 1.0,
        pose_weight: float = 1.0,
        class_prior: Sequence[float] | str | None = None,
        class_floor: float | None = None,
        pixel_fraction: float = 1.0,
        encoder_channels: tuple[int, ...] = (32, 64),
        hidden: int = 128,
        calibrate: bool = True,
        novelty_score: bool = True,
        compile: bool = False,
        precision: str = "float32",
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.latent_dim = latent_dim
        self.invariances = invariances
        self.method = method
        self.likelihood = likelihood
        self.sigma = sigma
        self.encoder = encoder
        self.classifier = classifier
        self.predict_views = predict_views
        self.decoder = decoder
        self.angle_posterior = angle_posterior
        self.angle_prior_rad = angle_prior_rad
        self.rotation_range_rad = rotation_range_rad
        self.labelled_orientation = labelled_orientation
        self.translation_prior = translation_prior
        self.scale_jitter = scale_jitter
        self.shear_jitter = shear_jitter
        self.intensity_jitter = intensity_jitter
        self.degradation = degradation
        self.max_epochs = max_epochs
        self.pretrain_epochs = pretrain_epochs
        self.batch_size = batch_size
        self.labelled_batch_size = labelled_batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.ema_decay = ema_decay
        self.kl_weight = kl_weight
        self.pseudo_label_threshold = pseudo_label_threshold
        self.pseudo_label_weight = pseudo_label_weight
        self.generative_weight = generative_weight
        self.pose_weight = pose_weight
        self.class_prior = class_prior
        self.class_floor = class_floor
        self.pixel_fraction = pixel_fraction
        self.encoder_channels = encoder_channels
        self.hidden = hidden
        self.calibrate = calibrate
        self.novelty_score = novelty_score
        self.compile = compile
        self.precision = precision
        self.device = device
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        callbacks: Sequence[Callable[[EpochReport], None]] = (),
        validation: tuple[Any, Any] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: bool = False,
    ) -> Self:
        """Fit to labelled and unlabelled images together.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, C, H, W)
            uint8 (taken as X / 255) or float images; may be a memory map.
        y : array-like of shape (n,)
            Labels of any integer or string kind; -1 (or None in an object array) for unlabelled.
        callbacks : sequence of callable
            Each is called with a :class:`tumble.fit.EpochReport` after each epoch; see :mod:`tumble.fit.callbacks`.
            With `pretrain_epochs`, plain callables follow the pre-training first: `report.stage` tells which it is.
        validation : (X, y) or None, default=None
            Labelled images that play no part in training; each epoch reports `validation_loss` and
            `validation_accuracy`, which `EarlyStopping` and `BestWeights` of :mod:`tumble.fit` can watch.
        checkpoint : path or None, default=None
            Folder for the state of the run, written after each epoch.
        resume : bool, default=False
            Go on from the state in `checkpoint`, if there is one; the result is that of an unbroken run.

        Returns
        -------
        self

        Raises
        ------
        DataError
            If `X` is not a stack of finite images of one size.
        LabelError
            If `y` has the wrong length or fewer than two classes.
        ConfigError
            If a parameter has a value that it cannot have, or `checkpoint` holds the state of another run.
        ModelFileError
            If the state in `checkpoint` is damaged, or cannot be written.
        """
        params = self._params()
        check_params(params)
        images = self._images(X)
        labels, unlabelled = check_labels(y, len(images))
        classes, indices = encode_labels(labels, unlabelled)
        check_unit_range(images, params["likelihood"])
        config = model_config(params, len(classes), images.shape[1:])
        prior = class_prior(params["class_prior"], len(classes))
        self._run_fit(
            TrainingData(images, indices),
            config,
            params,
            class_prior=prior,
            validation=None if validation is None else self._validation(validation, classes, config.image_shape),
            options=FitOptions(callbacks, checkpoint, resume),
        )
        self.classes_ = classes
        self.class_prior_ = self.model_.log_py.exp().cpu().numpy()
        return self

    def _validation(
        self, given: tuple[Any, Any], classes: npt.NDArray[Any], image_shape: tuple[int, int, int]
    ) -> TrainingData:
        """Give validation images the classes that are fitted; other labels count as none."""
        images = self._images(given[0], image_shape=image_shape)
        labels, unlabelled = check_labels(given[1], len(images))
        indices = np.full(len(images), -1, dtype=np.int64)
        for k, name in enumerate(classes):
            indices[(np.asarray(labels) == name) & ~unlabelled] = k
        return TrainingData(images, indices)

    def predict(self, X: Any, *, reject: float | None = None) -> npt.NDArray[Any]:
        """Most probable class of each image; shape (n,).

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, C, H, W)
            Images of the size that was fitted.
        reject : float or None, default=None
            Objects whose :meth:`novelty` exceeds that of all but this share of the known objects are not given a class
            but -1 ("unknown" where classes are strings): 0.05 gives up about one in twenty known objects.

        Returns
        -------
        ndarray of shape (n,)

        Raises
        ------
        ConfigError
            If `reject` is no number between 0 and 1, or the model has no score of novelty.
        """
        winners = self.predict_proba(X).argmax(axis=1)
        predicted = self.classes_[winners]
        if reject is None:
            return predicted
        check_number("reject", reject, low=0, high=1)
        novelty = self.novelty(X)
        assert self.model_.novelty is not None
        quantiles = self.model_.novelty.quantiles.cpu().numpy()
        # To give up all known objects is to give up all.
        limit = np.interp(1 - reject, np.linspace(0, 1, len(quantiles)), quantiles) if reject < 1 else -np.inf
        unknown: Any = UNLABELLED if predicted.dtype.kind in "iufb" else UNKNOWN
        # Room for the word where all class names are shorter.
        kind = np.result_type(predicted.dtype, np.asarray(unknown).dtype) if predicted.dtype.kind != "O" else object
        return np.where(novelty > limit, np.asarray(unknown, dtype=kind), predicted.astype(kind))

    def predict_proba(self, X: Any) -> npt.NDArray[np.float32]:
        """Calibrated q(y | x) of each image.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, C, H, W)
            Images of the size that was fitted.

        Returns
        -------
        ndarray of shape (n, n_classes)
            Rows sum to 1; columns in the order of `classes_`.
        """
        self._check_fitted()
        classifier = self._folded()
        return stacked(classifier(x)[0] for x in self._batches(X))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Share of the labelled images that are classified right.

        Unlabelled images are left out, so that cross-validation over a partly labelled set measures what is known.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, C, H, W)
            Images of the size that was fitted.
        y : array-like of shape (n,)
            True labels; -1 (or None in an object array) for unlabelled.
        sample_weight : array-like of shape (n,), optional
            Weights of the images.

        Returns
        -------
        float

        Raises
        ------
        LabelError
            If no image is labelled.
        """
        self._check_fitted()
        images = self._images(X, image_shape=self.model_.config.image_shape)
        labels, unlabelled = as_labels(y, len(images))
        weights = None if sample_weight is None else np.asarray(sample_weight)[~unlabelled]
        predicted = self.predict(images[~unlabelled])
        return float(accuracy_score(labels[~unlabelled], predicted, sample_weight=weights))

    def export_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write the classifier alone as one ONNX file; needs the extra "onnx".

        It takes ``images``, float32 of shape (n, C, H, W) in the units of `X` (uint8 images divided by 255), and gives
        ``probabilities``, those of :meth:`predict_proba`, and ``logits``. The classes, the shape of the images and the
        version of `tumble` are in its metadata. :class:`tumble.onnx_classifier.OnnxClassifier` reads it without torch.

        Parameters
        ----------
        path : path
            File to write.

        Raises
        ------
        TumbleError
            If the extra is not installed, or the exported network does not agree with PyTorch to 1e-4.
        ModelFileError
            If the file cannot be written.
        """
        self._check_fitted()
        # Only here: most fits are never exported, and torch's exporter takes seconds to load.
        from tumble.estimators.export import export_classifier

        export_classifier(Path(path), self._folded(), self.model_.config.image_shape, self.classes_.tolist())

    def _folded(self) -> FoldedClassifier:
        angles = view_angles(self.predict_views, self.rotation_range_rad, symmetry=self.model_.config.symmetry)
        return FoldedClassifier(self.model_, angles)
