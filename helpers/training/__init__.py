"""Augmentation, input pipeline, cached features, resumable fit, and the two stages of training."""

from helpers.training.augmentation import (
    Augmentation,
    augment,
    draw_augmentation,
    draw_frames,
    reframe,
    sample_weights,
    swap_edges,
    training_batches,
    viewed_batches,
)
from helpers.training.features import (
    cached_batches,
    tail,
)
from helpers.training.resumable import (
    Validate,
    fit,
)
from helpers.training.stages import (
    binary_validation,
    compile_model,
    fine_tuning_rate,
    hardened_logits,
    linear_probe,
    load_teacher,
    precision,
    predict_logits,
    pretrain,
    set_up,
    stage_key,
    taught,
    train_stage,
    training_parts,
    validation_figures,
)

__all__ = [
    "Augmentation",
    "Validate",
    "augment",
    "binary_validation",
    "cached_batches",
    "compile_model",
    "draw_augmentation",
    "draw_frames",
    "fine_tuning_rate",
    "fit",
    "hardened_logits",
    "linear_probe",
    "load_teacher",
    "precision",
    "predict_logits",
    "pretrain",
    "reframe",
    "sample_weights",
    "set_up",
    "stage_key",
    "swap_edges",
    "tail",
    "taught",
    "train_stage",
    "training_batches",
    "training_parts",
    "validation_figures",
    "viewed_batches",
]
