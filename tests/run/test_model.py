"""Backbones, freezing, saving and the folders that are refused."""

from __future__ import annotations

import functools
import json
import pickle
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from helpers import config, model, storage
from helpers.config import InputError, make_settings
from tests import notebook_code

SIZE = 64
pytestmark = [
    pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning"),  # on files that hold something else
    pytest.mark.filterwarnings("ignore:`input_shape` is undefined:UserWarning"),  # MobileNetV3 of any size
]
PIXELS = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 1)).astype(np.float32)


def settings(**changed):
    return make_settings("smoke", {"image_size": SIZE, "weights": "none", "dense_units": 8} | changed)


@functools.cache
def built(backbone: str) -> keras.Model:
    """The classifier on this backbone with random weights; tests leave its weights alone."""
    keras.utils.set_random_seed(1)
    chosen = settings(backbone=backbone)
    return notebook_code.add_head(model.build_backbone(chosen), chosen)


def fresh() -> keras.Model:
    """A small classifier that a test may change."""
    keras.utils.set_random_seed(1)
    return notebook_code.add_head(model.build_backbone(settings(backbone="SmallCNN")), settings(backbone="SmallCNN"))


def weights_of(classifier: keras.Model) -> dict[str, list[np.ndarray]]:
    return {layer.name: layer.get_weights() for layer in classifier.layers if layer.weights}


# Building


def test_the_first_weights_of_the_head_depend_on_the_setting_seed_alone():
    def head(seed: int) -> list[np.ndarray]:
        chosen = settings(backbone="SmallCNN", seed=seed)
        classifier = notebook_code.add_head(model.build_backbone(chosen), chosen)
        return classifier.get_layer("dense").get_weights() + classifier.get_layer("logit").get_weights()

    keras.utils.set_random_seed(1)
    one = head(1)
    again = head(1)  # by now more has been drawn
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[0], head(2)[0])


@pytest.mark.parametrize("name", config.BACKBONES)
def test_every_backbone_is_one_flat_graph_that_ends_in_a_probability(name):
    classifier = built(name)
    assert not [layer for layer in classifier.layers if isinstance(layer, keras.Model)]
    assert classifier.input_shape == (None, SIZE, SIZE, 1)
    assert classifier.output_shape == (None, 1)
    assert [layer.name for layer in classifier.layers[-5:]] == ["pooling", "dense", "dropout", "logit", "probability"]
    assert classifier.layers[-1].activation is keras.activations.sigmoid
    sigmoids = [
        x for x in model.backbone_layers(classifier) if getattr(x, "activation", None) is keras.activations.sigmoid
    ]
    assert name == "EfficientNetV2B0" or not sigmoids  # there, in squeeze-and-excitation
    probability, logit = np.asarray(classifier(PIXELS)), np.asarray(model.logit_model(classifier)(PIXELS))
    assert probability.shape == logit.shape == (2, 1)
    assert ((probability > 0) & (probability < 1)).all()
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-logit)), atol=1e-6)


@pytest.mark.parametrize("name", config.BACKBONES)
def test_backbone_layers_are_all_between_preprocessing_and_head(name):
    classifier = built(name)
    inside = model.backbone_layers(classifier)
    assert len(inside) == len(classifier.layers) - 3 - 5  # without input, three channels, preprocessing; head
    assert len(inside[-1].output.shape) == 4  # feature maps: what Grad-CAM looks at
    assert inside[-1].output is classifier.get_layer("pooling").input


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("ResNet50", keras.applications.resnet50),
        ("DenseNet121", keras.applications.densenet),
        ("EfficientNetV2B0", keras.applications.efficientnet_v2),
        ("MobileNetV3Large", keras.applications.mobilenet_v3),
        ("Xception", keras.applications.xception),
    ],
)
def test_preprocessing_inside_is_that_of_keras_applications(name, module):
    classifier = built(name)
    start = keras.Model(classifier.inputs[0], classifier.get_layer("preprocessing").output)
    expected = module.preprocess_input(np.repeat(PIXELS, 3, axis=-1))
    np.testing.assert_allclose(np.asarray(start(PIXELS)), expected, rtol=1e-5, atol=2e-5)


def test_small_cnn_scales_pixels_to_plus_minus_one():
    classifier = built("SmallCNN")
    start = keras.Model(classifier.inputs[0], classifier.get_layer("preprocessing").output)
    np.testing.assert_allclose(np.asarray(start(PIXELS)), np.repeat(PIXELS / 127.5 - 1, 3, axis=-1), atol=1e-6)


def test_models_are_called_with_plain_arrays_without_a_warning(recwarn):
    classifier = built("SmallCNN")
    for network in (classifier, model.logit_model(classifier)):
        network(PIXELS)
    assert not [w for w in recwarn if "structure of `inputs`" in str(w.message)]


# Weights to start from


def test_weights_from_a_file_land_in_the_backbone(tmp_path):
    plain = model.small_cnn(include_top=False, weights=None, input_tensor=layers.Input((None, None, 3)))
    plain.set_weights([np.random.default_rng(i).random(w.shape) for i, w in enumerate(plain.get_weights())])
    file = tmp_path / "small.weights.h5"
    plain.save_weights(file)
    backbone = model.build_backbone(settings(backbone="SmallCNN", weights=str(file)))
    for one, other in zip(backbone.get_weights(), plain.get_weights(), strict=True):
        assert np.array_equal(one, other)


def test_weights_of_another_network_are_refused(tmp_path):
    file = tmp_path / "other.weights.h5"
    keras.Sequential([layers.Input((4,)), layers.Dense(3)]).save_weights(file)
    with pytest.raises(InputError, match=r"other\.weights\.h5 does not hold weights of SmallCNN: \S"):
        model.build_backbone(settings(backbone="SmallCNN", weights=str(file)))


def test_weights_can_be_had_for_images_below_the_backbone_s_usual_size(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(keras.Model, "load_weights", lambda self, file: read.append(self.count_params()))
    (tmp_path / "xception.weights.h5").touch()
    # Keras refuses Xception with weights below 71 pixels, though they fit any size
    model.build_backbone(settings(backbone="Xception", weights=str(tmp_path / "xception.weights.h5")))
    assert read == [sum(layer.count_params() for layer in model.backbone_layers(built("Xception")))]


def test_a_weights_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "text.weights.h5").write_text("not HDF5")
    with pytest.raises(InputError, match="does not hold weights of SmallCNN"):
        model.build_backbone(settings(backbone="SmallCNN", weights=str(tmp_path / "text.weights.h5")))
    with pytest.raises(InputError, match="neither imagenet, none, phantoms nor a file that exists"):
        model.build_backbone(settings(backbone="SmallCNN", weights=str(tmp_path / "none.weights.h5")))


def offline(*_, **__):
    raise Exception("URL fetch failure on https://x: None\nmore")


def silent(*_, **__):
    raise TimeoutError


def refusal_of_imagenet() -> str:
    with pytest.raises(InputError) as refusal:
        model.build_backbone(settings(backbone="MobileNetV3Large", weights="imagenet"))
    return str(refusal.value)


def test_imagenet_offline_is_refused_with_both_ways_out(monkeypatch):
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", offline)  # what all constructors download with
    message = refusal_of_imagenet()
    assert "ImageNet weights of MobileNetV3Large are not on this machine" in message
    assert "(URL fetch failure on https://x: None)" in message
    assert "weights=PATH.weights.h5" in message
    assert "weights=none" in message


def test_an_error_without_a_word_is_named_by_its_kind(monkeypatch):
    monkeypatch.setitem(model.build._BACKBONES, "MobileNetV3Large", (silent, 1.0, 0.0))
    assert "(TimeoutError)" in refusal_of_imagenet()


def test_small_cnn_has_no_imagenet_weights():
    with pytest.raises(InputError, match="SmallCNN has no ImageNet weights"):
        model.build_backbone(settings(backbone="SmallCNN", weights="imagenet"))


def test_efficientnet_lite_computes_what_its_pytorch_original_does():
    backbone = model.build_backbone(settings(backbone="EfficientNetLite0", weights="imagenet"))
    pixels = (127.5 + 127.5 * np.sin(np.arange(SIZE * SIZE) / 50)).reshape(1, SIZE, SIZE, 1)
    found = backbone.predict(pixels.astype(np.float32), verbose=0).mean(axis=(0, 1, 2))
    assert found.mean() == pytest.approx(0.57946, abs=1e-4)  # both from efficientnet_lite_pytorch 0.1.0, torch 2.13
    np.testing.assert_allclose(
        found[[657, 462, 497, 825, 961]], [1.47260, 1.46128, 1.53901, 1.45846, 1.45127], atol=1e-4
    )


class Harmful:
    def __reduce__(self):
        return print, ("code ran",)


def test_a_file_of_torch_weights_cannot_run_code(tmp_path, capsys):
    file = tmp_path / "weights.pth"
    file.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(pickle.UnpicklingError, match="asks for builtins"):
        model.read_torch_weights(file)
    assert not capsys.readouterr().out


def test_a_file_of_other_weights_is_refused(tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(pickle.dumps(1))
    with pytest.raises(pickle.UnpicklingError, match="not written by PyTorch before"):
        model.read_torch_weights(file)


# Packing for a clone


def test_a_shrunk_model_takes_less_room_and_answers_alike(tmp_path):
    classifier = fresh()
    model.save(classifier, tmp_path, {"seed": 1})
    size = (tmp_path / "model.keras").stat().st_size
    model.shrink(tmp_path)
    assert (tmp_path / "model.keras").stat().st_size < 0.8 * size
    assert {file.name for file in tmp_path.iterdir()} == {"model.keras", "model.json"}
    loaded, card = model.load(tmp_path)
    assert card["seed"] == 1
    np.testing.assert_allclose(loaded(PIXELS), classifier(PIXELS), atol=1e-3)
    for one, other in zip(loaded.get_weights(), classifier.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=2**-12)
        assert one.ndim < 2 or not (one.view(np.uint32) % 2**11).any()


# Freezing


@pytest.mark.parametrize(("name", "unfrozen"), [("ResNet50", 10), ("SmallCNN", 10), ("SmallCNN", 0), ("SmallCNN", 999)])
def test_exactly_the_last_layers_but_batch_normalisation_learn(name, unfrozen):
    classifier = built(name)
    notebook_code.unfreeze(classifier, unfrozen)
    inside = model.backbone_layers(classifier)
    last = inside[-unfrozen:] if unfrozen else []
    for layer in inside:
        expected = layer in last and not isinstance(layer, layers.BatchNormalization)
        assert layer.trainable == expected, layer.name
    assert all(classifier.get_layer(name).trainable for name in ("dense", "logit"))


def test_minus_one_unfreezes_the_whole_backbone_but_batch_normalisation():
    classifier = built("SmallCNN")
    notebook_code.unfreeze(classifier, -1)
    still = [layer.name for layer in model.backbone_layers(classifier) if not layer.trainable]
    assert still
    assert still == [x.name for x in classifier.layers if isinstance(x, layers.BatchNormalization)]


def test_of_resnet50_the_last_ten_layers_are_the_last_block():
    classifier = built("ResNet50")
    notebook_code.unfreeze(classifier, 10)
    names = {layer.name for layer in model.backbone_layers(classifier) if layer.trainable and layer.weights}
    assert names == {f"conv5_block3_{n}_conv" for n in (1, 2, 3)}


def test_freezing_again_takes_back_what_was_unfrozen():
    classifier = built("SmallCNN")
    notebook_code.unfreeze(classifier, 10)
    notebook_code.unfreeze(classifier, 0)
    assert {w.path.split("/")[0] for w in classifier.trainable_weights} == {"dense", "logit"}


def train_a_little(classifier: keras.Model, unfrozen: int) -> tuple[dict, dict]:
    """Weights before and after a few steps."""
    notebook_code.unfreeze(classifier, unfrozen)
    classifier.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", run_eagerly=True)  # no time for a graph
    before = weights_of(classifier)
    rng = np.random.default_rng(0)
    classifier.fit(rng.random((8, SIZE, SIZE, 1)) * 255, np.arange(8)[:, None] % 2, batch_size=4, verbose=0)
    return before, weights_of(classifier)


def moved(before: dict, after: dict) -> set[str]:
    return {
        name for name in before if any(not np.array_equal(a, b) for a, b in zip(before[name], after[name], strict=True))
    }


def test_training_the_head_moves_nothing_else():
    classifier = fresh()
    assert moved(*train_a_little(classifier, 0)) == {"dense", "logit"}


def test_fine_tuning_moves_the_last_convolutions_and_no_statistics():
    classifier = fresh()
    before, after = train_a_little(classifier, 6)  # the last block
    assert moved(before, after) == {"block4a", "block4b", "dense", "logit"}
    assert not any(after["block4b_bn"][1])  # the shift, and
    assert not any(after["block4b_bn"][2])  # the moving mean: as they were made
    change = model.weight_change(built("SmallCNN"), classifier)  # made from the same seed
    assert set(change.index[change["relative change"] > 0]) == {"block4a", "block4b", "dense", "logit"}


def test_weight_change_is_relative():
    one, other = (
        keras.Sequential([layers.Input((3,)), layers.Dense(1)]),
        keras.Sequential([layers.Input((3,)), layers.Dense(1)]),
    )
    one.set_weights([np.array([[3.0], [0.0], [4.0]]), np.zeros(1)])
    other.set_weights([np.array([[3.0], [1.0], [4.0]]), np.zeros(1)])
    assert model.weight_change(one, other)["relative change"].tolist() == [pytest.approx(1 / 5)]


# Saving and loading


@pytest.fixture
def folder(tmp_path):
    model.save(built("SmallCNN"), tmp_path / "model", model.make_card(settings(), "abc", public=True))
    return tmp_path / "model"


def edit(folder, **changes) -> None:
    card = json.loads((folder / "model.json").read_text()) | changes
    (folder / "model.json").write_text(json.dumps({k: v for k, v in card.items() if v != "remove"}))


def test_a_model_comes_back_with_equal_outputs(folder):
    classifier = built("SmallCNN")
    again, _ = model.load(folder)
    for one, other in zip(again.get_weights(), classifier.get_weights(), strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(np.asarray(again(PIXELS)), np.asarray(classifier(PIXELS)))
    assert [layer.name for layer in model.backbone_layers(again)] == [x.name for x in model.backbone_layers(classifier)]
    assert sorted(file.name for file in folder.iterdir()) == ["model.json", "model.keras"]


def test_the_card_says_what_the_contract_asks_for(folder):
    card = model.read_card(folder)
    assert card["format"] == model.FORMAT == 1
    assert card["labels"] == ["NORMAL", "PNEUMONIA"]
    assert card["input_size"] == [SIZE, SIZE, 1]
    assert (card["backbone"], card["weights_origin"], card["dataset_fingerprint"]) == ("SmallCNN", "none", "abc")
    assert card["sha256"] == storage.sha256(folder / "model.keras")
    assert card["phantoms"] is True
    assert {"threshold", "threshold_policy", "calibration", "metrics", "versions"} <= card.keys()


def test_a_copy_is_a_model_too_also_onto_itself(folder, tmp_path):
    model.copy(folder, tmp_path / "deep" / "copy")
    assert model.read_card(tmp_path / "deep" / "copy") == model.read_card(folder)
    model.copy(folder, folder / ".." / "model")
    assert model.load(folder)[1]["sha256"] == storage.sha256(folder / "model.keras")
    (folder / "model.keras").write_bytes(b"damaged")
    with pytest.raises(InputError, match="checksum"):
        model.copy(folder, tmp_path / "second")
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize("missing", ["model.json", "model.keras", "both"])
def test_a_folder_without_its_files_is_refused(folder, missing):
    for name in ("model.json", "model.keras"):
        if missing in (name, "both"):
            (folder / name).unlink()
    with pytest.raises(InputError, match=r"is not a model folder: it needs model\.keras and model\.json"):
        model.load(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"format": 1}', '{"format": "new", "sha256": ""}', "\xff"]
)
def test_a_damaged_card_is_refused(folder, text):
    (folder / "model.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"model\.json is damaged"):
        model.load(folder)


@pytest.mark.parametrize("changes", [{"input_size": 224}, {"threshold": 0.4}])
def test_a_card_that_no_prediction_could_be_made_with_is_refused(folder, changes):
    edit(folder, **changes)
    with pytest.raises(InputError, match=r"model\.json is damaged: it needs input_size, a list, and with a threshold"):
        model.load(folder)


def test_a_copy_that_the_disk_has_no_room_for_leaves_the_model_there(folder, tmp_path, monkeypatch):
    model.copy(folder, tmp_path / "copy")
    (tmp_path / "copy" / model.ood.FILE).write_bytes(b"its check")
    before = {file.name: file.read_bytes() for file in (tmp_path / "copy").iterdir()}

    def full(source, target):
        if Path(target).name.startswith("model.json"):
            raise OSError(28, "No space left on device")
        return copyfile(source, target)

    copyfile = shutil.copyfile
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space"):
        model.copy(folder, tmp_path / "copy")
    after = {file.name: file.read_bytes() for file in (tmp_path / "copy").iterdir()}
    assert after == before


def test_another_model_does_not_inherit_the_guard_that_was_there(folder, planted, tmp_path):
    films = np.random.default_rng(0).integers(0, 256, (8, 32, 32), dtype=np.uint8)
    model.ood.save(model.ood.fit(films, films), folder)
    model.write_card(folder, model.read_card(folder))
    model.save(planted, folder, model.read_card(folder))
    assert "guard_sha256" not in model.read_card(folder)
    assert not (folder / model.ood.FILE).exists()
    (tmp_path / "target").mkdir()
    model.ood.save(model.ood.fit(films, films), tmp_path / "target")
    model.copy(folder, tmp_path / "target")
    assert not (tmp_path / "target" / model.ood.FILE).exists()


def test_a_changed_model_is_refused(folder):
    data = bytearray((folder / "model.keras").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.keras").write_bytes(data)
    with pytest.raises(InputError, match="does not fit the checksum"):
        model.load(folder)


def test_a_newer_format_is_refused(folder):
    edit(folder, format=2)
    with pytest.raises(InputError, match="has format 2; this code reads up to 1: update it"):
        model.load(folder)


def test_a_model_with_code_in_it_is_refused(tmp_path, capfd):
    start = layers.Input((4, 4, 1))
    network = keras.Model(start, layers.Lambda(lambda x: [print("code ran"), x * 2][1])(start))
    model.save(network, tmp_path, {})
    capfd.readouterr()
    with pytest.raises(InputError, match=r"model\.keras cannot be loaded: .*Lambda"):
        model.load(tmp_path)
    assert "code ran" not in capfd.readouterr().out


def test_a_file_that_is_no_model_is_refused_though_its_checksum_fits(folder):
    (folder / "model.keras").write_bytes(b"not a zip file")
    model.write_card(folder, {"input_size": [64, 64, 1]})
    with pytest.raises(InputError, match=r"model\.keras cannot be loaded: \S"):
        model.load(folder)
