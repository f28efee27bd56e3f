"""Diagrams: the flow of images, and a network."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from helpers import plots

plt.switch_backend("Agg")


@pytest.fixture(autouse=True)
def _no_figure_is_left():
    yield
    plt.close("all")


def texts() -> list[str]:
    return [text.get_text() for text in plt.gca().texts]


def test_a_flow_names_each_step_and_each_reason_with_its_images():
    rows = [
        ("found", "", 12, 9, 5, 7),
        ("excluded", "copy of another image", 2, 2, 1, 1),
        ("used", "", 10, 8, 4, 6),
        ("train", "", 6, 5, 2, 4),
        ("validation", "", 4, 3, 2, 2),
        ("test", "", 0, 0, 0, 0),
    ]
    plots.image_flow(pd.DataFrame(rows, columns=["step", "why", "images", "patients", "NORMAL", "PNEUMONIA"]))
    assert "train: 6 images\n5 patients\nnormal 2, pneumonia 4" in texts()
    assert "excluded: 2 images\n2: copy of another image" in texts()


def test_a_network_has_a_box_for_each_map_size_and_head_layer(planted):
    plots.network(planted)
    assert [text.split("\n")[0] for text in texts() if text and "weights" not in text] == [
        "32 × 32", "pooling", "dense", "dropout", "logit", "probability",
    ]  # fmt: skip
    learning = [bar.get_facecolor() for bar in plt.gca().patches]
    assert learning[0] == learning[2] == learning[4] != learning[1] == learning[3] == learning[5]
