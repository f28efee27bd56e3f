"""Augmentation, input pipeline, cached features, resumable fit, and the two stages of training."""

from helpers.training.augmentation import Augmentation, augment, draw_augmentation, draw_frames, reframe
from helpers.training.augmentation import equalise, sample_weights, swap_edges, training_batches, viewed_batches
from helpers.training.features import cached_batches, tail
from helpers.training.resumable import Validate, fit, seed_draws
from helpers.training.stages import augmented_validation_logits, binary_validation, distillation_batches
from helpers.training.stages import fine_tuning_rate, fit_ood_check, linear_probe, load_teacher, precision
from helpers.training.stages import predict_logits, predict_rows, pretrain, set_up, stage_key, train_stage
from helpers.training.stages import training_parts, validation_figures
