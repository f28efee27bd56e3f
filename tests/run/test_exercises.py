"""The course's exercises: as their solutions say, passed by these, failed by stubs and by plausible wrong answers."""

from __future__ import annotations

import re
import textwrap

import matplotlib.pyplot as plt
import nbformat
import pytest

from helpers import config
from notebooks import make_exercises

STEMS = tuple(path.stem for path in sorted(config.NOTEBOOKS.glob("*.ipynb")))
every_notebook = pytest.mark.parametrize("stem", STEMS)


def cells(folder, stem: str) -> list[nbformat.NotebookNode]:
    return nbformat.read(folder / f"{stem}.ipynb", as_version=nbformat.NO_CONVERT).cells


def code(folder, stem: str) -> dict[str, str]:
    """{id: source} of the code cells, in order."""
    return {cell.id: cell.source for cell in cells(folder, stem) if cell.cell_type == "code"}


def stubs(stem: str) -> list[tuple[str, str]]:
    """(id of a cell with something to do, id of the next one, which checks it)."""
    ids, sources = zip(*code(make_exercises.EXERCISES, stem).items(), strict=True)
    return [(ids[i], ids[i + 1]) for i, source in enumerate(sources) if "your code here" in source]


@every_notebook
def test_exercises_are_made_from_solutions(stem):
    solution = (make_exercises.SOLUTIONS / f"{stem}.ipynb").read_text(encoding="utf-8")
    made = (make_exercises.EXERCISES / f"{stem}.ipynb").read_text(encoding="utf-8")
    assert made == make_exercises.exercise(solution), "run `python notebooks/make_exercises.py`"


@every_notebook
def test_an_exercise_shows_no_solution_and_ends_in_a_check(stem):
    shown = "\n".join(cell.source for cell in cells(make_exercises.EXERCISES, stem))
    assert "SOLUTION" not in shown
    assert "**Why.**" not in shown
    checks = [code(make_exercises.EXERCISES, stem)[check] for _, check in stubs(stem)]
    assert all("assert " in check and "your code here" not in check for check in checks)
    assert len(re.findall(r"^## Exercise \d", shown, re.MULTILINE)) in (2, 3, 4)


@pytest.fixture(scope="module")
def solved(smoke, eager):
    """stem -> the variables of an exercise, its solutions filled in, after it has run on the smoke run."""
    namespaces = {}

    def run(stem: str) -> dict:
        if stem not in namespaces:
            filled = code(make_exercises.EXERCISES, stem)
            solutions = code(make_exercises.SOLUTIONS, stem)
            filled |= {stub: solutions[stub] for stub, _ in stubs(stem)}
            parameters, *rest = filled.values()
            parameters = parameters.replace('profile = "demo"', 'profile = "smoke"')
            parameters = parameters.replace('run = ""', f'run = "{smoke.name}"')
            namespace = namespaces[stem] = {"In": ["", parameters]}
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(config, "REPORTS", smoke.clone.reports)
                for source in (parameters, *rest):
                    exec(source, namespace)
            plt.close("all")
        return namespaces[stem]

    return run


@every_notebook
def test_filled_with_solutions_an_exercise_runs_and_leaves_the_run_alone(stem, smoke, solved):
    before = {path: path.stat().st_mtime_ns for path in smoke.folder.rglob("*")}
    solved(stem)
    assert {path: path.stat().st_mtime_ns for path in smoke.folder.rglob("*")} == before


@every_notebook
def test_a_stub_fails_its_check(stem, solved):
    exercise = code(make_exercises.EXERCISES, stem)
    for stub, check in stubs(stem):
        with pytest.raises(NotImplementedError, match="your code here"):
            exec(exercise[stub] + "\n" + exercise[check], dict(solved(stem)))


HEAD = """\
x = layers.GlobalAveragePooling2D()(backbone.output)
x = layers.Dropout(dropout)(layers.Dense(units, "relu")(x))
classifier = keras.Model(backbone.input, layers.Dense(3, "{}")(x))
classifier.compile("adam", "{}")
return classifier
"""
FROZEN, RIGHT_LOSS = "backbone.trainable = False\n", "sparse_categorical_crossentropy"
SIGMOIDS, MOVING = FROZEN + HEAD.format("sigmoid", RIGHT_LOSS), HEAD.format("softmax", RIGHT_LOSS)
OTHER_LOSS = FROZEN + HEAD.format("softmax", "mean_squared_error")
RIGHT_HEAD = FROZEN + HEAD.format("softmax", RIGHT_LOSS)
DROPOUT_LAST = (
    FROZEN
    + """\
x = layers.Dense(units, "relu")(layers.GlobalAveragePooling2D()(backbone.output))
x = layers.Dropout(dropout)(layers.Dense(3, "softmax")(x))
classifier = keras.Model(backbone.input, x)
classifier.compile("adam", "sparse_categorical_crossentropy")
return classifier
"""
)
NEVER_RESET = """\
best, bad = 0, 0
for epoch, loss in enumerate(losses[1:], 1):
    best, bad = (epoch, bad) if loss < losses[best] else (best, bad + 1)
    if bad == patience:
        return best, epoch
return best, len(losses) - 1
"""
PATIENT_MEANS = """\
means = np.array([values[units == unit].mean() for unit in np.unique(units)])
return np.random.default_rng(seed).choice(means, (resamples, len(means))).mean(axis=1).std()
"""
GRAD_CAM = """\
with tf.GradientTape() as tape:
    tape.watch(image)
    maps, logit = network(image)
    score = {1}
weights = tf.reduce_mean(tape.gradient(score, maps), axis=(1, 2), keepdims=True)
return tf.nn.relu({0}tf.reduce_sum(weights * maps, axis=-1)).numpy()
"""
BLACK = """\
count = len(image) // patch
covered = np.repeat(image[None], count * count, axis=0)
for square in range(count * count):
    covered[square, square // count * patch :, square % count * patch :][:patch, :patch] = 0
return (score(image[None])[0] - score(covered)).reshape(count, count)
"""
NEVER_UNCOVERED = """\
count, covered = len(image) // patch, image.copy()
fall = np.zeros((count, count))
for row in range(count):
    for column in range(count):
        covered[row * patch :, column * patch :][:patch, :patch] = image.mean()
        fall[row, column] = score(image[None])[0] - score(covered[None])[0]
return fall
"""

# what a student may well write instead: notebook, function, its body, what the check says of it
WRONG = (
    ("01_eda", "lazy_accuracy", "return max(ill_test.mean(), 1 - ill_test.mean())", "from train"),
    ("01_eda", "pairwise_auc", "return (score[ill][:, None] > score[~ill]).mean()", "one is a tie"),
    ("01_eda", "plant", "some[ill, :6, :6] = 255; return some", "the given array has changed"),
    ("02_preprocessing", "leaked", "return np.isin(patients[held_out], patients).mean()", "two of three images"),
    ("02_preprocessing", "split_by_patient", "return np.random.default_rng(seed).random(len(ill)) < 0.3", "both sides"),
    (
        "02_preprocessing",
        "split_by_patient",
        "return np.isin(patients, np.unique(patients)[:6])",
        "in validation|wanted",
    ),
    ("02_preprocessing", "shift_right", "return np.roll(image, by, axis=1)", "0 comes in"),
    ("02_preprocessing", "brighten", "return image + np.uint8(by % 256)", "has become dark"),
    ("03_training", "head_weights", "return channels * units + units", "two biases"),
    ("03_training", "three_answers", SIGMOIDS, "add up to 1"),
    ("03_training", "three_answers", MOVING, "is the backbone frozen"),
    ("03_training", "three_answers", OTHER_LOSS, "is not made for labels"),
    ("03_training", "three_answers", RIGHT_HEAD.replace('"relu"', "None"), "ReLU"),
    ("03_training", "three_answers", RIGHT_HEAD.replace("Average", "Max"), "mean of each map"),
    ("03_training", "three_answers", DROPOUT_LAST, "between the two Dense layers"),
    ("03_training", "balanced_weights", "return np.where(ill, ill.mean(), 1 - ill.mean())", "is not 1"),
    ("03_training", "weighted_loss", "return -(weights * np.log(p)).mean()", "Keras computes"),
    ("03_training", "early_stopping", "return int(np.argmin(losses)), len(losses) - 1", "never seen"),
    ("03_training", "early_stopping", NEVER_RESET, "starts the count anew"),
    ("04_fine_tuning", "unfreeze", "for x in inside: x.trainable = x in inside[-last:]", "should learn"),
    (
        "04_fine_tuning",
        "unfreeze",
        "for i, x in enumerate(inside): x.trainable = i >= len(inside) - last",
        "normalisation",
    ),
    ("04_fine_tuning", "stored_mean", "return momentum**steps * new + (1 - momentum**steps) * old", "Keras stores"),
    ("04_fine_tuning", "relative_change", "return abs(np.linalg.norm(after) / np.linalg.norm(before) - 1)", "as long"),
    ("05_evaluation", "quiet_threshold", "return p[~ill].max()", "is allowed|are allowed"),
    ("05_evaluation", "quiet_threshold", "return max(t for t in p if (p[~ill] >= t).mean() <= most)", "may find more"),
    (
        "05_evaluation",
        "quiet_threshold",
        "return min(t for t in p if (p >= t).mean() <= most)",
        "are allowed|find more",
    ),
    ("05_evaluation", "standard_error", "return values.std() / np.sqrt(len(values))", "adds no patient"),
    ("05_evaluation", "standard_error", PATIENT_MEANS, "twenty times as much"),
    ("05_evaluation", "precision_at", "return sensitivity", "are false alarms"),
    ("05_evaluation", "flattery", "return max(((p >= t) == ill).mean() for t in p)", "0.4 is right twice"),
    ("06_grad_cam", "speaks_against", GRAD_CAM.format("", "logit"), "another map"),
    ("06_grad_cam", "speaks_against", GRAD_CAM.format("-", "tf.sigmoid(logit)"), "another map"),
    ("06_grad_cam", "even_share", "return 4 * width", "the whole square"),
    ("06_grad_cam", "occlusion", BLACK, "mean grey"),
    ("06_grad_cam", "occlusion", NEVER_UNCOVERED, "one at a time"),
    ("07_predict", "decide", "return correct(network, card, pixels / 255)", "other probabilities"),
    ("07_predict", "decide", "return correct(network, card | {'calibration': PLAIN}, pixels)", "other probabilities"),
    (
        "07_predict",
        "three_answers",
        "return np.select([p <= low, p >= high], ['NORMAL', 'PNEUMONIA'], 'uncertain')",
        "edges",
    ),
)


@pytest.mark.parametrize(("stem", "name", "body", "said"), WRONG, ids=[f"{stem}-{name}" for stem, name, *_ in WRONG])
def test_a_plausible_wrong_answer_fails_its_check(stem, name, body, said, solved):
    exercise, namespace = code(make_exercises.EXERCISES, stem), dict(solved(stem))
    (check,) = (check for stub, check in stubs(stem) if f"def {name}(" in exercise[stub])
    (signature,) = re.findall(rf"^def {name}\(.*\):$", "\n".join(exercise.values()), re.MULTILINE)
    namespace |= {"correct": namespace[name], "PLAIN": {"slope": 1.0, "intercept": 0.0}}
    exec(f"{signature}\n" + textwrap.indent(body, "    "), namespace)
    with pytest.raises(AssertionError, match=said):
        exec(exercise[check], namespace)
