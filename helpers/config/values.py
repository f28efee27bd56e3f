"""Values of settings: checked, converted and put together from profile, recipe and what is named by hand."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from helpers import storage
from helpers.config.recipes import PROFILES, RECIPES
from helpers.config.settings import BASIC, FEWEST_PHANTOMS, FIELDS, TYPES, InputError, Settings


def _nearest(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.0)
    return close[0] if close else ""


def _convert(name: str, value: Any) -> Any:
    """`value` (a literal, or text from a command line) as the type of setting `name`, within its range."""
    wanted, meta = TYPES[name], FIELDS[name].metadata
    converted = value
    if wanted is bool and isinstance(value, str):
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        converted = words.get(value.strip().lower(), value)
    elif (wanted is int and isinstance(value, str)) or (wanted is float and type(value) in (str, int)):
        with contextlib.suppress(ValueError, OverflowError):
            converted = number = float(value)
            converted = int(number) if wanted is int and number == int(number) else number
    elif wanted is str and isinstance(value, os.PathLike | float | int) and type(value) is not bool:
        converted = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    if type(converted) is not wanted:
        kind = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[wanted]
        raise InputError(f"setting {name}={value!r} is not {kind} ({meta['help']}).")
    low, high = meta["low"], meta["high"]
    if low is not None and not low <= converted <= high:
        nearest = min(max(converted, low), high) if converted == converted else low
        raise InputError(f"setting {name}={value} is outside {low} to {high}; the nearest possible value is {nearest}.")
    choices = PROFILES if name == "profile" else meta["choices"]
    if choices and converted not in choices:
        raise InputError(
            f"setting {name}={value} is not one of {', '.join(choices)}; the nearest is {_nearest(converted, choices)}."
        )
    if name == "threshold_policy":
        parse_policy(converted)
    if name == "fold":
        parse_fold(converted)
    return converted


def parse_fold(fold: str) -> tuple[int, int] | str | None:
    """Split the setting `fold`: "2/5" -> (2, 5), "series:IM" -> "IM", "" -> None; InputError for anything else."""
    if match := re.fullmatch(r"(\d{1,3})/(\d{1,3})", fold.replace(" ", "")):
        number, of = int(match[1]), int(match[2])
        if 1 <= number <= of and of >= 2:
            return number, of
    elif fold.startswith("series:") and fold != "series:":
        return fold.removeprefix("series:")
    elif not fold:
        return None
    raise InputError(f"setting fold={fold} is no fold; use 1/5 to 5/5 (of five), or series:IM, or leave it empty.")


def parse_policy(policy: str) -> tuple[str, float | None]:
    """Split a threshold policy into ("sensitivity", target), ("youden", None) or ("fixed", threshold).

    Raises InputError for anything else, and for numbers outside (0, 1].
    """
    text = policy.replace(" ", "")
    if text == "youden":
        return "youden", None
    match = re.fullmatch(r"(sensitivity>=)?(\d*\.?\d+(?:e-?\d+)?)", text)
    if match and 0 < float(match.group(2)) <= 1:
        return ("sensitivity" if match.group(1) else "fixed"), float(match.group(2))
    raise InputError(
        f"setting threshold_policy={policy} is not a policy; use sensitivity>=0.97, youden, or a number above 0 "
        "and at most 1 such as 0.5."
    )


def _check_together(settings: Settings) -> None:
    """Refuse, with an InputError, settings that no run could carry out together."""
    if 0 < settings.phantoms < FEWEST_PHANTOMS:
        raise InputError(
            f"setting phantoms={settings.phantoms} is too few patients for both classes and subtypes in each split; "
            f"the nearest possible value is {FEWEST_PHANTOMS}."
        )
    if settings.traps != "none" and not settings.phantoms:
        raise InputError(f"traps={settings.traps} breaks a run of phantoms on purpose: on real images leave it out.")
    if settings.backbone == "SmallCNN" and settings.weights == "imagenet":
        raise InputError("backbone=SmallCNN has no ImageNet weights: add weights=none, or choose another backbone.")
    if settings.weights == "phantoms" and not (settings.pretraining_phantoms > 1 and settings.pretraining_epochs):
        raise InputError(
            "weights=phantoms first trains the backbone on phantoms: add pretraining_phantoms=1500 "
            "pretraining_epochs=15, or weights=none."
        )
    if settings.frame and settings.cached_views and settings.unfrozen_layers >= 0:
        raise InputError(
            "frame needs new augmented images in every epoch: set unfrozen_layers=-1 or cached_views=0, or leave frame "
            "out."
        )


def non_default(settings: Settings, names: Iterable[str]) -> dict:
    """Those of `names` whose value is not the default of `Settings`, which does nothing special, with their values.

    What a result depends on, in a form that stays the same when settings are added.
    """
    return {name: getattr(settings, name) for name in names if getattr(settings, name) != FIELDS[name].default}


def _fresh(profile: str, recipe: str) -> Settings:
    return replace(Settings(), **(RECIPES[recipe] | PROFILES[profile] | {"profile": profile, "recipe": recipe}))


def make_settings(
    profile: str = "demo", overrides: dict | None = None, base: Settings | None = None, named: Iterable[str] = ()
) -> Settings:
    """Settings of `profile` (or a recorded `base`, of which `named` were set by hand) with `overrides` by field name.

    A recipe sets what neither the profile, nor `overrides`, nor `named` name. Where `data` names a folder, that is read
    and nothing drawn; `phantoms` and `traps` then say what was drawn into it, unless `phantoms` is named too.
    InputError for an unknown profile or name (naming the nearest right one), an impossible value, or values that are
    impossible together.
    """
    checked: dict[str, Any] = {}
    given = overrides or {}
    if base is None:
        profile = _convert("profile", profile)
        base = _fresh(profile, _convert("recipe", given.get("recipe", PROFILES[profile].get("recipe", "classic"))))
        if given.get("data"):
            checked = drawn_into(expanded(str(given["data"])), given)
    elif "recipe" in given:
        before, after = (_fresh(base.profile, name) for name in (base.recipe, _convert("recipe", given["recipe"])))
        differing = [name for name in FIELDS if getattr(after, name) != getattr(before, name)]
        base = replace(base, **{name: getattr(after, name) for name in differing if name not in set(named)})
    for name, value in given.items():
        if name not in FIELDS:
            raise InputError(f"there is no setting {name!r}; the nearest is {_nearest(name, FIELDS)!r}.")
        checked[name] = _convert(name, value)
    settings = replace(base, **checked)
    _check_together(settings)
    return settings


def expanded(path: str) -> Path:
    """`path` with ~ as the home folder; as it is where nobody is called so."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises


def drawn_into(folder: Path, given: dict) -> dict[str, Any]:
    """The settings `phantoms` and `traps` as drawn into a dataset folder, by its phantoms.json; 0 and "none" without.

    InputError where `given` names another trap that would have had to be drawn.
    """
    recorded = storage.read_json(folder / "phantoms.json")
    patients, trap = recorded.get("patients"), recorded.get("trap", "none")
    if given.get("traps", trap) not in ({trap} if trap != "none" else {trap, "threshold"}):
        raise InputError(
            f"traps={given['traps']}, but the dataset was drawn with traps={trap}: leave out data or traps."
        )
    return {"phantoms": patients if isinstance(patients, int) else 0, "traps": trap}


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """["backbone=Xception", "seed=2"] -> {"backbone": "Xception", "seed": "2"}; InputError where "=" is missing."""
    pairs = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"--set {text!r} is not NAME=VALUE, such as backbone=DenseNet121.")
        pairs[name.strip()] = value
    return pairs


def list_settings(profile: str) -> str:
    """Every setting with its value in `profile`, its range, and what it does: first those that most readers change."""
    values, lines = make_settings(profile), []
    for title, names in (("Basic", BASIC), ("Advanced", [name for name in FIELDS if name not in BASIC])):
        lines += ["", f"{title} settings of the profile {profile}:"]
        for name in names:
            meta, kind = FIELDS[name].metadata, {bool: "True or False", str: "text"}.get(TYPES[name], "")
            choices = ", ".join(PROFILES if name == "profile" else meta["choices"])
            possible = choices or kind or f"{meta['low']:,} to {meta['high']:,}"
            lines += [f"  {name} = {getattr(values, name)}  ({possible})", f"      {meta['help']}"]
    return "\n".join(lines[1:])
