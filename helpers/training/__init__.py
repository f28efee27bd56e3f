"""Augmentation, input pipeline, cached features, resumable fit, and the two stages of training."""

from helpers.training.augmentation import Augmentation, augment, draw_augmentation, draw_frames, reframe
from helpers.training.augmentation import equalise, sample_weights, swap_edges, training_batches, viewed_batches
from helpers.training.features import cached_batches, learning_layers
from helpers.training.resumable import Validate, fit, seed_draws
from helpers.training.stages import fine_tuning_rate, linear_probe, precision
from helpers.training.stages import pretrain, set_up, stage_key, train_stage, training_parts
from helpers.training.validation import augmented_validation_logits, binary_validation, calibrated_loss
from helpers.training.validation import fit_ood_check, predict_logits, predict_rows
