"""The steps of `tumble` that join a library with images, labels and an estimator.

Nothing else in the package knows both a library and an estimator. Each step takes an open
:class:`tumble.library.Library`, works, and stores its result in it at the end; a step that fails or is
interrupted stores nothing. torch is imported by the steps that need it, so that extracting and labelling
start quickly.
"""

from tumble.pipeline.ask import class_counts, compare_models, label_agreement, suggest_labels, varied_particles
from tumble.pipeline.classify import ClassifiedLibrary, classify_library
from tumble.pipeline.cluster import Cluster, open_cluster
from tumble.pipeline.evaluate import BASELINE, evaluate
from tumble.pipeline.extract import ExtractedFile, ProgressCallback, extract_files, extract_into
from tumble.pipeline.extraction import Annotations, ExtractionOptions, find_particles, write_preview
from tumble.pipeline.fit import estimator_for_crops, fit_library
from tumble.pipeline.label import label_from_csv, label_from_mask, parse_class_names
from tumble.pipeline.model_folder import MODEL_FILES

__all__ = [
    "BASELINE",
    "MODEL_FILES",
    "Annotations",
    "ClassifiedLibrary",
    "Cluster",
    "ExtractedFile",
    "ExtractionOptions",
    "ProgressCallback",
    "class_counts",
    "classify_library",
    "compare_models",
    "estimator_for_crops",
    "evaluate",
    "extract_files",
    "extract_into",
    "find_particles",
    "fit_library",
    "label_agreement",
    "label_from_csv",
    "label_from_mask",
    "open_cluster",
    "parse_class_names",
    "suggest_labels",
    "varied_particles",
    "write_preview",
]
