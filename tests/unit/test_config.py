"""Settings: profiles, overrides, and refusals that help."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers import config
from helpers.config import FIELDS, InputError, make_settings, parse_policy

# Profiles and overrides


@pytest.mark.parametrize("name", config.PROFILES)
def test_every_value_of_a_profile_would_pass_as_an_override(name):
    settings = make_settings(name, config.PROFILES[name])
    assert settings == make_settings(name)
    assert settings.profile == name


def test_the_defaults_are_within_their_own_ranges():
    for name, field in FIELDS.items():
        given = {"cached_views": 0, name: field.default}
        assert getattr(make_settings("chest_xray", given), name) == field.default
        assert field.metadata["notebook"] in {f"{n:02d}" for n in range(1, 8)}
        assert field.metadata["help"]


def test_phantoms_are_drawn_by_the_embedded_profiles_only():
    assert {name for name in config.PROFILES if make_settings(name).phantoms} == {"demo", "smoke"}


def test_recipe_classic_is_the_mission_s_model():
    classic = make_settings("chest_xray", {"recipe": "classic"})
    assert (classic.backbone, classic.weights, classic.image_size) == ("ResNet50", "imagenet", 224)
    assert (classic.unfrozen_layers, classic.fine_tuning_rate, classic.dropout) == (10, 1e-5, 0.5)
    assert (classic.weight_decay, classic.rate_schedule, classic.weight_average) == (0, "constant", 0)
    augmented = [n for n, f in FIELDS.items() if f.metadata["help"].startswith("augmentation:") and getattr(classic, n)]
    assert {"rotation", "zoom", "shear"} <= set(augmented)
    assert not {"mirror", "noise", "gamma", "sharpness"} & set(augmented)


def test_the_public_dataset_is_trained_with_recipe_full_by_default():
    real = make_settings("chest_xray")
    assert (real.recipe, real.unfrozen_layers, real.threshold_policy) == ("full", -1, "sensitivity>=0.97")
    assert make_settings("chest_xray", {"recipe": "full"}) == real


def test_a_recipe_yields_to_the_profile_and_to_what_is_named():
    small = make_settings("smoke", {"recipe": "full"})
    assert (small.backbone, small.image_size, small.fine_tuning_epochs) == ("SmallCNN", 64, 2)
    assert (small.unfrozen_layers, small.mirror) == (-1, True)
    assert make_settings("smoke", {"recipe": "full", "mirror": False}).mirror is False


def test_another_recipe_for_a_recorded_run_changes_what_the_recipe_sets():
    base = make_settings("smoke", {"seed": 5})
    changed = make_settings(overrides={"recipe": "full"}, base=base)
    assert (changed.recipe, changed.unfrozen_layers, changed.image_size) == ("full", -1, base.image_size)
    assert make_settings(overrides={"recipe": "classic"}, base=base) == base
    named = make_settings("smoke", {"zoom": 0.4, "patience": 9})
    changed = make_settings(overrides={"recipe": "full", "patience": 3}, base=named, named=["zoom", "patience"])
    assert (changed.zoom, changed.patience, changed.unfrozen_layers) == (0.4, 3, -1)


def test_overrides_leave_the_profile_itself_alone():
    before = dict(config.PROFILES["smoke"])
    changed = make_settings("smoke", {"seed": 7, "image_size": 97})
    assert (changed.seed, changed.image_size) == (7, 97)
    assert config.PROFILES["smoke"] == before
    assert make_settings("smoke").image_size != 97


def test_a_recorded_base_wins_over_the_profile():
    base = make_settings("smoke", {"seed": 5})
    assert make_settings("chest_xray", {"image_size": 80}, base=base) == make_settings(
        "smoke", {"seed": 5, "image_size": 80}
    )


def test_a_named_folder_is_read_and_never_described_as_phantoms(tmp_path):
    assert make_settings("demo", {"data": str(tmp_path)}).phantoms == 0
    assert make_settings("demo", {"data": str(tmp_path), "phantoms": 20}).phantoms == 20
    assert make_settings("demo", {"data": ""}).phantoms == make_settings("demo").phantoms


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("seed", "12", 12),
        ("seed", "1e3", 1000),
        ("resamples", "20.0", 20),
        ("rotation", 10, 10.0),
        ("rotation", "7.5", 7.5),
        ("head_rate", "1e-4", 1e-4),
        ("mirror", "false", False),
        ("mirror", " No ", False),
        ("mirror", "1", True),
        ("deterministic", True, True),
        ("data", Path("some") / "folder", str(Path("some") / "folder")),
        ("threshold_policy", 0.5, "0.5"),
        ("threshold_policy", 1e-5, "1e-05"),
        ("backbone", "Xception", "Xception"),
    ],
)
def test_values_become_the_type_of_their_setting(name, given, wanted):
    value = getattr(make_settings("demo", {name: given}), name)
    assert value == wanted
    assert type(value) is type(wanted)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("bakcbone", "Xception", "nearest is 'backbone'"),
        ("epochs", 3, "_epochs'"),
        ("backbone", "ResNet5", "nearest is ResNet50"),
        ("backbone", "xception", "nearest is Xception"),
        ("image_size", 16, "nearest possible value is 32"),
        ("image_size", 4096, "nearest possible value is 1024"),
        ("dropout", -0.1, "nearest possible value is 0.0"),
        ("rotation", "nan", "outside 0.0 to 180.0"),
        ("rotation", float("inf"), "nearest possible value is 180.0"),
        ("seed", "two", "not a whole number"),
        ("seed", 1.5, "not a whole number"),
        ("seed", "1.5", "not a whole number"),
        ("seed", "nan", "not a whole number"),
        ("seed", "inf", "not a whole number"),
        ("seed", True, "not a whole number"),
        ("zoom", "much", "not a number"),
        ("zoom", None, "not a number"),
        ("mirror", "perhaps", "not true or false"),
        ("mirror", 1, "not true or false"),
        ("data", None, "not text"),
        ("model", True, "not text"),
        ("threshold_policy", "sensitivity>=2", "not a policy"),
    ],
)
def test_impossible_overrides_are_refused_with_the_nearest_right_one(name, given, said):
    with pytest.raises(InputError, match=".*" + said.replace(".", r"\.")) as refusal:
        make_settings("demo", {name: given})
    assert name in str(refusal.value)


def test_an_unknown_profile_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="nearest is chest_xray"):
        make_settings("chestxray")


def test_assignments_are_split_at_the_first_equals_sign():
    given = ["backbone=Xception", "threshold_policy=sensitivity>=0.9", "data="]
    assert config.parse_assignments(given) == {
        "backbone": "Xception",
        "threshold_policy": "sensitivity>=0.9",
        "data": "",
    }


@pytest.mark.parametrize("wrong", ["seed", "=3", ""])
def test_assignments_without_name_or_value_are_refused(wrong):
    with pytest.raises(InputError, match="NAME=VALUE"):
        config.parse_assignments([wrong])


@pytest.mark.parametrize(
    ("policy", "parsed"),
    [
        ("sensitivity>=0.97", ("sensitivity", 0.97)),
        ("sensitivity >= 1", ("sensitivity", 1.0)),
        ("youden", ("youden", None)),
        ("0.5", ("fixed", 0.5)),
        (".25", ("fixed", 0.25)),
        ("1e-05", ("fixed", 1e-5)),
    ],
)
def test_policies_are_parsed(policy, parsed):
    assert parse_policy(policy) == parsed


@pytest.mark.parametrize(
    "policy", ["", "0", "-0.5", "1.01", "sensitivity>=0", "sensitivity>0.9", "specificity>=0.9", "Youden's", "nan"]
)
def test_other_policies_are_refused(policy):
    with pytest.raises(InputError, match=r"sensitivity>=0\.97, youden, or a number"):
        parse_policy(policy)


# Notebooks


@pytest.fixture
def reports(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(config, "REPORTS", tmp_path / "reports")
    return tmp_path / "reports"


def run_cells(*cells: str) -> dict:
    """The namespace of a kernel that has run these cells."""
    namespace: dict = {"In": [""]}
    for source in cells:
        namespace["In"].append(source)
        exec(source, namespace)
    return namespace


def test_a_notebook_takes_its_settings_from_the_parameters_cell(reports):
    namespace = run_cells('# Parameters: any setting\nprofile = "smoke"  # a comment\nrun = ""', "seed = 99")
    settings, folder = config.notebook_settings(namespace)
    assert settings == make_settings("smoke")  # the second cell is no parameters cell
    assert folder == reports / "smoke"
    assert folder.is_dir()


def test_an_injected_cell_overrides_the_notebooks_own(reports):
    own = '# Parameters\nprofile = "demo"\nrun = ""\nseed = 2'
    injected = '# Parameters\nprofile = "smoke"\nrun = "mine"\nrotation = 0\n'
    settings, folder = config.notebook_settings(run_cells(own, injected))
    assert settings == make_settings("smoke", {"seed": 2, "rotation": 0})
    assert folder == reports / "mine"


def test_running_the_cells_again_gives_the_same(reports):
    cell = '# Parameters\nprofile = "smoke"\nseed = 3'
    once = config.notebook_settings(run_cells(cell, "settings = 1"))
    assert config.notebook_settings(run_cells(cell, "settings = 1", cell, "x = 2", cell)) == once
    changed, _ = config.notebook_settings(run_cells(cell, cell.replace("3", "4")))
    assert changed.seed == 4


def test_every_way_to_assign_a_parameter_counts(reports):
    settings, _ = config.notebook_settings(run_cells("# Parameters\nseed: int = 4\nimage_size, zoom = 48, 0.2"))
    assert (settings.seed, settings.image_size, settings.zoom) == (4, 48, 0.2)


def test_a_parameter_that_is_no_setting_is_refused(reports):
    with pytest.raises(InputError, match="nearest is 'rotation'"):
        config.notebook_settings(run_cells("# Parameters\nrotations = 3"))
    assert not reports.exists()


def test_a_run_named_by_a_number_is_a_folder_of_that_name(reports):
    _, folder = config.notebook_settings(run_cells('# Parameters\nprofile = "smoke"\nrun = 2024'))
    assert folder == reports / "2024"


@pytest.mark.parametrize("run", [True, 1e3, None, ["a"], {"a": 1}])
def test_a_run_named_by_another_literal_is_refused_in_words(reports, run):
    with pytest.raises(InputError, match="is not text: put it in quotes"):
        config.notebook_settings(run_cells(f"# Parameters\nrun = {run!r}"))


literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner),
    max_leaves=3,
)


@given(name=st.sampled_from([*FIELDS]), value=literals | st.just(10**400) | st.just("~nobody/x"))
@example("rotation", 10**400)
@example("data", "~nobody/x")
def test_any_literal_becomes_the_type_of_its_setting_or_is_refused(name, value):
    try:
        found = getattr(make_settings("smoke", {name: value}), name)
    except InputError as refusal:
        assert str(refusal)  # noqa: PT017 - both ends are right
    else:
        assert type(found) is type(FIELDS[name].default)


def test_without_a_parameters_cell_it_is_the_demo(reports):
    assert config.notebook_settings({"profile": "smoke"}) == (make_settings("demo"), reports / "demo")


def test_a_run_cannot_leave_the_reports_from_a_notebook(reports):
    with pytest.raises(InputError, match="cannot be a folder"):
        config.notebook_settings(run_cells('# Parameters\nrun = "../elsewhere"'))
    assert not (reports.parent / "elsewhere").exists()


# Settings for readers


@pytest.mark.parametrize("profile", config.PROFILES)
def test_the_list_has_every_setting_once_the_basic_ones_first(profile):
    lines = config.list_settings(profile).splitlines()
    named = [line.split(" = ")[0].strip() for line in lines if " = " in line]
    assert sorted(named) == sorted(FIELDS)
    assert tuple(named[: len(config.BASIC)]) == config.BASIC
    assert len(config.BASIC) <= 14
    for name, field in FIELDS.items():
        assert f"      {field.metadata['help']}" in lines
        assert f"  {name} = {getattr(make_settings(profile), name)}  (" in "\n".join(lines)


# Folders and files


@pytest.mark.parametrize("name", ["demo", "a", "2024-01-01_run.2", "x" * 80, "console", "nullable"])
def test_run_names_that_any_system_can_store(name):
    assert config.run_folder(name) == config.REPORTS / name


WAYS_OUT = ("", ".", "..", "../x", "a/b", "a\\b", "/etc", "C:", "a:b")
TROUBLE = (".hidden", "-flag", "é", "x" * 81, "a*", "a?", 'a"b', "a|b", "a b", "a\n", "end.")
DEVICES = ("CON", "nul", "Aux.txt", "com1", "LPT9.old")


@pytest.mark.parametrize("name", WAYS_OUT + TROUBLE + DEVICES)
def test_other_run_names_are_refused(name):
    with pytest.raises(InputError, match="cannot be a folder"):
        config.run_folder(name)


@pytest.mark.parametrize("name", ["results", "Results"])
def test_no_run_takes_the_folder_of_the_tracked_results(name):
    with pytest.raises(InputError, match="choose another name"):
        config.run_folder(name)


def test_the_dataset_is_the_profiles_own_unless_a_folder_is_named(tmp_path, monkeypatch):
    assert config.dataset_folder(make_settings("chest_xray")) == config.DATA / "chest_xray"
    monkeypatch.chdir(tmp_path)
    assert config.dataset_folder(make_settings("demo", {"data": "mine"})) == tmp_path.resolve() / "mine"
    assert config.dataset_folder(make_settings("demo", {"data": "~/mine"})) == Path.home().resolve() / "mine"


def test_other_phantoms_have_another_folder():
    """What one run drew is not drawn over by the next."""
    drawn = {
        config.dataset_folder(make_settings("smoke", given))
        for given in (
            {},
            {"phantoms": 80},
            {"traps": "labels"},
            {"traps": "marker"},
            {"phantoms": 80, "traps": "marker"},
        )
    }
    assert len(drawn) == 5
    assert config.dataset_folder(make_settings("smoke", {"traps": "labels"})) == config.DATA / "smoke-60-labels"
    for same in ({"seed": 2}, {"resamples": 60}, {"traps": "threshold"}):
        assert config.dataset_folder(make_settings("smoke", same)) == config.DATA / "smoke"
    assert config.dataset_folder(make_settings("chest_xray", {"seed": 2})) == config.DATA / "chest_xray"


def test_a_required_file_names_the_notebook_that_writes_the_file(tmp_path):
    with pytest.raises(InputError, match=r"splits\.csv is missing in .*: run 02_preprocessing first"):
        config.require_file(tmp_path / "splits.csv", "02_preprocessing")
    assert config.require_file(tmp_path, "01_eda") == tmp_path


# What a notebook opens with


def test_describe_says_what_a_phantom_run_is_worth():
    text = config.describe(make_settings("smoke", {"seed": 42, "phantoms": 61}), config.REPORTS / "smoke")
    assert "61 phantom patients" in text
    assert "seed      42" in text
    assert "nothing about patients" in text
    assert f"run       {Path('reports') / 'smoke'}\n" in text
    for package, number in config.versions().items():
        assert f"{package} {number}" in " ".join(text.split())


@pytest.mark.parametrize("trap", ["none", *config.TRAPS])
def test_describe_says_what_was_broken_on_purpose(trap):
    text = config.describe(make_settings("smoke", {"traps": trap}), config.REPORTS / "smoke")
    found = [name for name, said in config.TRAPS.items() if said in " ".join(text.split())]
    assert found == [trap] * (trap != "none")


def test_describe_names_the_folder_of_real_images(tmp_path):
    text = config.describe(make_settings("chest_xray", {"data": str(tmp_path)}), tmp_path / "run")
    assert f"data      {tmp_path}" in text
    assert f"run       {tmp_path / 'run'}" in text
    assert "phantom" not in text


@pytest.mark.parametrize(
    ("profile", "wish", "said"),
    [
        ("demo", {"phantoms": 19}, "the nearest possible value is 20"),
        ("chest_xray", {"backbone": "SmallCNN"}, "add weights=none"),
        ("chest_xray", {"traps": "labels"}, "on real images leave it out"),
        ("chest_xray", {"backbone": "SmallCNN", "weights": "phantoms"}, "add pretraining_phantoms=1500"),
        ("smoke", {"frame": 0.1}, "frame needs .* set unfrozen_layers=-1 or cached_views=0"),
    ],
)
def test_what_is_impossible_together_is_refused_before_anything_runs(profile, wish, said):
    with pytest.raises(InputError, match=said):
        make_settings(profile, wish)


def test_the_mended_wishes_are_possible():
    make_settings("demo", {"phantoms": 20})
    make_settings("chest_xray", {"backbone": "SmallCNN", "weights": "none"})
    asked = {"backbone": "SmallCNN", "weights": "phantoms", "pretraining_phantoms": 1500, "pretraining_epochs": 15}
    make_settings("chest_xray", asked)
    make_settings("smoke", {"frame": 0.1, "cached_views": 0})
    make_settings("demo", {"frame": 0.1})


@pytest.mark.parametrize(
    ("weights", "origin"),
    [("imagenet", "imagenet"), ("none", "none"), ("phantoms", "phantoms"), ("/home/me/x.weights.h5", "x.weights.h5")],
)
def test_the_origin_of_weights_holds_no_folder(weights, origin):
    assert config.weights_origin(make_settings("demo", {"weights": weights, "backbone": "Xception"})) == origin


@pytest.mark.parametrize(
    ("fold", "parsed"), [("", None), ("1/5", (1, 5)), (" 5 / 5 ", (5, 5)), ("series:NORMAL2-IM", "NORMAL2-IM")]
)
def test_a_fold_is_a_number_of_so_many_or_a_series(fold, parsed):
    assert config.parse_fold(make_settings("smoke", {"fold": fold}).fold) == parsed


@pytest.mark.parametrize("fold", ["0/5", "6/5", "1/1", "1/", "one", "series:", "0.2"])
def test_an_impossible_fold_is_refused(fold):
    with pytest.raises(InputError, match="is no fold; use 1/5 to 5/5"):
        make_settings("smoke", {"fold": fold})


def test_a_folder_of_phantoms_says_which_trap_was_drawn_into_it(tmp_path):
    (tmp_path / "phantoms.json").write_text('{"version": 3, "patients": 60, "seed": 1, "trap": "labels"}')
    given = {"data": str(tmp_path)}
    assert make_settings("smoke", given).traps == "labels"
    with pytest.raises(InputError, match="traps=marker, but the dataset was drawn with traps=labels"):
        make_settings("smoke", given | {"traps": "marker"})
