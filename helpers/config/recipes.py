"""Profiles and recipes: settings that go together."""

from __future__ import annotations

# What a recipe sets, below the profile and what is named by hand.
RECIPES: dict[str, dict] = {
    "classic": {"head_epochs": 10},
    # Linear probing, then all layers (Kumar et al. 2022, ICLR); augmentation that blurs what gives the source away;
    # weights averaged over steps at a rate that does not fall (Izmailov et al. 2018; under a shift, Cha et al. 2021).
    # Backbone, crops, equalisation, compression and downscaling: chosen in reports/results/crops.md.
    "full": {
        "backbone": "EfficientNetLite0",
        "image_size": 224,
        "label_smoothing": 0.05,
        "rotation": 15.0,
        "zoom": 0.0,  # crops do this
        "shear": 6.0,
        "translation": 0.0,
        "crop_area": 0.2,
        "equalisation": 1.0,
        "compression": 0.5,
        "downscaling": 0.3,
        "brightness": 0.15,
        "contrast": 0.3,
        "mirror": True,
        "gamma": 0.35,
        "sharpness": 0.8,
        "noise": 0.04,
        "frame": 0.15,  # what shows around the chest must not decide
        "cached_views": 1,
        "head_epochs": 10,
        "batch_size": 16,
        "unfrozen_layers": -1,
        "fine_tuning_epochs": 13,
        "fine_tuning_rate": 3e-4,
        "rate_schedule": "warm-up",
        "weight_average": 0.997,  # the last 300 steps or so, about an epoch
        "weight_decay": 1e-4,
        "patience": 5,
        "validation_views": 3,
    },
}
_PHANTOM_RECIPE = {
    "backbone": "SmallCNN",
    "weights": "phantoms",
    "dense_units": 64,
    "image_size": 96,
    "resamples": 500,
}
PROFILES: dict[str, dict] = {
    "demo": _PHANTOM_RECIPE
    | {
        "phantoms": 700,
        "validation_fraction": 0.33,  # a threshold needs images
        "pretraining_phantoms": 600,
        "pretraining_epochs": 4,
        "batch_size": 16,
        "dropout": 0.3,
        "rotation": 8.0,
        "shear": 4.0,
        "cached_views": 4,
        "head_epochs": 30,
        "head_rate": 3e-3,
        "unfrozen_layers": -1,
        "fine_tuning_epochs": 10,
        "fine_tuning_rate": 1e-3,
        "rate_schedule": "cosine",
        "weight_average": 0.9,
        "validation_views": 1,
        "patience": 8,
    },
    "smoke": _PHANTOM_RECIPE
    | {
        "phantoms": 60,
        "image_size": 64,
        "validation_fraction": 0.2,
        "fine_tuning_rate": 5e-5,
        "pretraining_phantoms": 64,
        "pretraining_epochs": 1,
        "cached_views": 2,
        "head_epochs": 2,
        "fine_tuning_epochs": 2,
        "resamples": 50,
        "explained": 2,
        "localised": 20,
    },
    "chest_xray": {"recipe": "full", "deterministic": False, "mixed_precision": True},
}
# What the pages of a run of phantoms say at their top.
PHANTOMS = "The images are drawn by code. The numbers show that the code works. They say nothing about patients."
# What can be broken on purpose in a run of phantoms, as the top of its pages says it.
TRAPS = {
    "patients": "each film of train is named as if it were another patient's, so that a patient can be on both sides.",
    "preprocessing": "the test films are predicted without a step of their preprocessing: black and white are swapped.",
    "threshold": "the threshold is chosen on the test images.",
    "marker": "in train and validation every film with pneumonia has a letter at its edge, and no other film has.",
    "labels": "one in ten patients of train and validation is filed under the wrong label.",
}
