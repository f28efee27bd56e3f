"""What the notebooks share: a wing per step of the story. Each imports only from those above it in this list.

storage     files that are written whole or not at all, and their fingerprints
config      settings, profiles, recipes
images      from bytes to pixels: JPEG, PNG, DICOM; the array of all images
phantom     the embedded default dataset, drawn by code
dataset     the dataset folder: manifest, audit, split by patient, download
model       the classifier: build and freeze it; the model folder; the out-of-distribution check
training    augmentation, input pipeline, cached features, resumable fit, the two stages
evaluation  metrics, intervals, calibration, decisions, published results
explain     heatmaps and their scores
plots       figures
predict     from bytes to a decision with a saved model, and its command
page        the prediction page: widgets and answers in words
run         the runner: papermill, plan, state, report, publish

A wing's public names are those of its package: `from helpers import images`, then `images.read_image(path)`.
Commands, which may import from all of these: helpers.run, helpers.predict, and four that no notebook imports.
Compare: two runs, or many, as a page. Serve: the page as a server. Download: the public dataset.
Publish: a model, or a report without X-rays.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported
# Read when Keras is imported: backend, float type and data format are its defaults, whatever ~/.keras/keras.json or
# variables of this session say. Weights that Keras downloads lie in data/keras/models.
for _name in [name for name in os.environ if name.startswith("KERAS_")]:
    del os.environ[_name]
os.environ |= {"KERAS_BACKEND": "tensorflow", "KERAS_HOME": str(Path(__file__).resolve().parents[1] / "data" / "keras")}
# jsonschema, which nbformat and Voila import, does without this grammar of addresses, which takes 3 s to build.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
