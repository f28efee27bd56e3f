"""What others report for the public test set, and a run beside them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from helpers.evaluation.tables import in_words, with_interval

# Percent, but the AUC a fraction; empty where not reported. A source owner/name is a repository on GitHub.
PUBLISHED = pd.read_csv(Path(__file__).with_name("published.csv"))


def compare_published(summary: dict, name: str, how: str) -> pd.DataFrame:
    """A run on top of what others report for the dataset's 624 test images.

    Parameters
    ----------
    summary : dict
        Result of `summarise`.
    name, how : str
        What to call the run, and how its numbers were obtained.

    Returns
    -------
    DataFrame of text
        Columns who, accuracy, sensitivity, specificity (percent), AUC (fraction), n, how; the run's numbers with their
        95% intervals, "–" for what is not reported.
    """
    digits = {"accuracy": (100, 1), "sensitivity": (100, 1), "specificity": (100, 1), "auc": (1, 3)}
    own = {key: with_interval(summary[key], *form) for key, form in digits.items()}
    others = PUBLISHED.assign(
        **{key: PUBLISHED[key].map(f"{{:.{d}f}}".format).replace("nan", "–") for key, (_, d) in digits.items()}
    )
    table = pd.concat([pd.DataFrame([{"who": name, "n": summary["n"], "how": how} | own]), others], ignore_index=True)
    return table[["who", *digits, "n", "how"]].rename(columns=in_words)
