"""The examples in docstrings are run."""

import doctest
import importlib

import pytest

from helpers import config

WITH_EXAMPLES = sorted(
    ".".join(file.relative_to(config.ROOT).with_suffix("").parts)
    for file in (config.ROOT / "helpers").rglob("*.py")
    if ">>> " in file.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_in_docstrings_give_what_they_say(module):
    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert result.attempted
    assert not result.failed
