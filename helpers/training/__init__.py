"""Augmentation, input pipeline, cached features, resumable fit, and the two stages of training."""

from helpers.training.augmentation import Augmentation, augment, draw_augmentation, draw_frames, reframe
from helpers.training.augmentation import equalise, sample_weights, swap_edges, training_batches, viewed_batches
from helpers.training.features import cached_batches, tail
from helpers.training.resumable import Validate, fit, seed_draws
from helpers.training.stages import (
    binary_validation,
    compile_model,
    fine_tuning_rate,
    fit_ood_check,
    augmented_validation_logits,
)
from helpers.training.stages import linear_probe, load_teacher, precision, predict_logits, predict_rows, pretrain
from helpers.training.stages import (
    set_up,
    stage_key,
    distillation_batches,
    train_stage,
    training_parts,
    validation_figures,
)
