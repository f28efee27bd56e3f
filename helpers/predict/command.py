"""The command `python -m helpers.predict`: files and folders in, CSV out."""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TextIO

from PIL import Image
from tqdm import tqdm

from helpers import config, explain, images, storage
from helpers.config import InputError
from helpers.predict.predictor import Predictor, parse_age

COLUMNS = ("path", "probability", "label", "threshold", "warnings", "error")
MANY = 64  # files, from which on it pays to start processes that decode them


def find_images(arguments: list[str]) -> Iterator[str]:
    """Every file named, and for every folder its files with an image's suffix, recursively, sorted.

    What would begin as a formula in a spreadsheet gets "./" before it, and is the same file.
    """
    for argument in (f"./{name}" if name.startswith(storage.FORMULA) else name for name in arguments):
        if not Path(argument).is_dir():
            yield argument
            continue
        found = []
        for directory, below, names in os.walk(argument, onerror=_refuse):
            below[:] = [name for name in below if not name.startswith(".")]
            images_here = [n for n in names if n.lower().endswith(config.SUFFIXES) and not n.startswith(".")]
            found += [os.path.join(directory, name).replace(os.sep, "/") for name in images_here]  # noqa: PTH118 - pathlib would drop a leading "./"
        yield from sorted(found)


def _refuse(error: OSError) -> None:
    raise InputError(f"the folder {error.filename} cannot be read: {error.strerror}.")


def predict_files(
    predictor: Predictor,
    paths: Iterable[str],
    heat_folder: Path | None = None,
    age: float | None = None,
    processes: int = 0,
) -> Generator[dict, None, None]:
    """A row of COLUMNS per path, in order, 16 images at a time; an unreadable image has `error` and no probability.

    `age` in years holds where a file does not say it. Files are decoded by so many `processes` beside this one.
    """
    remaining, done = images.read_all(paths, processes), 0
    while group := list(islice(remaining, 16)):
        decoded = {path: found for path, found in group if not isinstance(found, InputError)}
        decoded = {path: found._replace(age=age) if found.age is None else found for path, found in decoded.items()}
        predictions = dict(zip(decoded, predictor.predict_decoded(decoded.values()), strict=True)) if decoded else {}
        for position, (path, found) in enumerate(group):
            if isinstance(found, InputError):
                yield dict.fromkeys(COLUMNS, "") | {"path": path, "error": str(found)}
                continue
            prediction = predictions[path]
            if heat_folder:
                shown = explain.overlay(decoded[path].pixels, predictor.heatmap(prediction))
                Image.fromarray(shown).save(heat_folder / f"{done + position + 1:05d}_{Path(path).stem[:60]}.png")
            yield {
                "path": path,
                "probability": f"{prediction.probability:.9g}",
                "label": prediction.label,
                "threshold": f"{prediction.threshold:.9g}",
                "warnings": "; ".join(prediction.warnings),
                "error": "",
            }
        done += len(group)


def write_rows(rows: Iterable[dict], output: TextIO) -> int:
    """Write rows of COLUMNS as CSV, each as soon as it is there; how many have an error."""
    writer, failed = csv.DictWriter(output, COLUMNS, lineterminator="\n"), 0
    writer.writeheader()
    try:
        for row in rows:
            writer.writerow({name: storage.writable(value) for name, value in row.items()})
            failed += bool(row["error"])
    finally:
        output.flush()
        if output is not sys.stdout:
            output.close()
    return failed


def main(arguments: list[str] | None = None) -> int:
    """The command; exit status 0, 1 where an image could not be read, 2 where the table could not be made.

    As shells have it, 130 where it was interrupted and 141 where nobody read the table to its end.
    """
    parser = argparse.ArgumentParser(prog="python -m helpers.predict", description=__doc__)
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER")
    parser.add_argument("--model", metavar="DIR", help="model folder, such as reports/demo/model")
    parser.add_argument("--csv", metavar="FILE", help="write the table there instead of printing it")
    parser.add_argument("--excel", action="store_true", help="begin that file with the mark by which Excel knows UTF-8")
    parser.add_argument("--heatmaps", metavar="DIR", help="write a Grad-CAM overlay per image there")
    parser.add_argument("--age", metavar="YEARS", help="of the patient, where the file does not say it")
    given = parser.parse_args(arguments)
    try:
        age = parse_age(given.age) if given.age is not None else None
        if not given.model and not config.PRETRAINED.is_dir():
            raise InputError(
                f"{config.PRETRAINED} is not there: name a model with --model, such as reports/demo/model."
            )
        if given.csv and given.csv.lower().endswith(config.SUFFIXES):
            raise InputError(f"--csv {given.csv} names an image: give the file to write the table to.")
        if given.excel and not given.csv:
            raise InputError("--excel is about a file: name it with --csv.")
        predictor = Predictor.load(given.model or config.PRETRAINED)
        if given.heatmaps:
            Path(given.heatmaps).mkdir(parents=True, exist_ok=True)
        paths = list(find_images(given.images))
        if not paths:
            raise InputError(f"there is no image in {', '.join(given.images)} ({', '.join(config.SUFFIXES)}).")
        if not given.csv and isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
            sys.stdout.reconfigure(encoding="utf-8")  # a file, as --csv would write it; a terminal has its own
        encoding = "utf-8-sig" if given.excel else "utf-8"
        output = open(given.csv, "w", newline="", encoding=encoding) if given.csv else sys.stdout  # noqa: SIM115, PTH123
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename} cannot be written: {error.strerror}.", file=sys.stderr)
        return 2
    heat_folder = Path(given.heatmaps) if given.heatmaps else None
    processes = 0
    if len(paths) >= MANY:
        processes = min(8, os.cpu_count() or 1)
        predictor.trace()
    rows = tqdm(
        predict_files(predictor, paths, heat_folder, age, processes),
        total=len(paths),
        disable=True if output.isatty() else None,
    )
    try:
        failed = write_rows(rows, output)
    except KeyboardInterrupt:
        print("interrupted: the table holds the rows that were done.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return storage.close_stdout()
    except OSError as error:
        where = error.filename or given.csv or "the table"
        print(f"{where} cannot be written: {error.strerror}.", file=sys.stderr)
        return 2
    finally:
        rows.close()
    if failed:
        print(f"{failed} of {len(paths)} images could not be read; see the column error.", file=sys.stderr)
    return 1 if failed else 0
