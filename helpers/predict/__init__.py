"""From bytes to a decision with a saved model; `python -m helpers.predict` does it for files and folders."""

from helpers.predict.command import predict_files
from helpers.predict.predictor import FRAMING, UNCERTAIN, UPSIDE_DOWN, Prediction, Predictor
from helpers.predict.predictor import age_warning, image_warnings, made_for, parse_age, reframed
