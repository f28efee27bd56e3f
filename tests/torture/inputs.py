"""A whole run over one dataset that holds every oddity at once, and small ones with which a run must stop early."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from tests.conftest import dicom, make_clone
from tests.torture import runs
from tests.torture.runs import Findings

READ = ""  # instead of the reason for which a file is left out
NETWORK = ("weights=none", "pretraining_phantoms=0", "head_epochs=1", "fine_tuning_epochs=1", "cached_views=1")


def film(seed: int, height: int = 70, width: int = 80) -> Image.Image:
    """A grey picture that is like no other."""
    small = np.random.default_rng(seed).integers(0, 256, (9, 9), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height))


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """The picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(seed: int) -> bytes:
    return encoded(film(seed), "JPEG")


def oddities() -> dict[str, tuple[bytes, str]]:
    """Name -> (content, part of the reason it is left out, or READ)."""
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(np.asarray(film(30)).astype(np.uint16) * 257)
    frames = {"save_all": True, "append_images": [film(32)]}
    clear = film(33).convert("L")
    clear.putalpha(film(34))
    return {
        "text.jpeg": (b"this is no picture\n" * 9, "no JPEG, PNG or DICOM"),
        "truncated.jpeg": (jpeg(20)[:-400], "unreadable"),
        "truncated.png": (encoded(film(21), "PNG")[:-900], "unreadable"),
        "truncated.dcm": (dicom(np.asarray(film(22)), bits=8)[:-900], "unreadable"),
        "empty.jpeg": (b"", "0 bytes"),
        "huge.png": (encoded(Image.new("L", (10_000, 10_000), 9), "PNG"), "100 megapixels"),
        "pixel.png": (encoded(film(23, 1, 1), "PNG"), READ),
        "row.png": (encoded(film(24, 1, 500), "PNG"), READ),
        "cmyk.jpeg": (encoded(film(25).convert("CMYK"), "JPEG"), READ),
        "rgb.jpeg": (encoded(film(26).convert("RGB"), "JPEG"), READ),
        "palette.png": (encoded(film(27).convert("P"), "PNG"), READ),
        "palette-clear.png": (encoded(film(28).convert("P"), "PNG", transparency=bytes(range(256))), READ),
        "alpha.png": (encoded(clear, "PNG"), READ),
        "bilevel.png": (encoded(film(29).convert("1"), "PNG"), READ),
        "deep.png": (encoded(deep, "PNG"), READ),
        "animated.png": (encoded(film(31), "PNG", **frames), READ),
        "animated.gif.jpeg": (encoded(film(35), "GIF", **frames), READ),
        "tiff.png": (encoded(film(36), "TIFF"), READ),
        "document.jpeg": (b"%PDF-1.7" + bytes(99), "a PDF document"),
        "rotated.jpeg": (encoded(film(37), "JPEG", exif=exif), READ),
        "a-png.jpeg": (encoded(film(38), "PNG"), READ),
        "a-jpeg.png": (jpeg(39), READ),
        "a-dicom.jpeg": (dicom(np.asarray(film(40)), bits=8), READ),
        "CAPITALS.JPG": (jpeg(41), READ),
        "снимок 肺炎 צילום 🫁.jpeg": (jpeg(42), READ),
        "quote'\"<b>&;$(x)`.jpeg": (jpeg(43), READ),
        "  blanks  .jpeg": (jpeg(44), READ),
        "-dash.jpeg": (jpeg(45), READ),
        "x" * 245 + ".jpeg": (jpeg(46), READ),
        "a/b/c/nested.jpeg": (jpeg(47), READ),
        "folder.jpeg/inside.jpeg": (jpeg(48), READ),
        "multi.dcm": (dicom(np.stack([np.asarray(film(49))] * 3), bits=8), READ),
    }


def odd_dataset(root: Path) -> dict[str, str]:
    """Write it; what the manifest has to say of every path: a part of the reason, or READ."""
    expected = {}

    def put(path: str, data: bytes, why: str = READ) -> Path:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        expected[path] = why
        return file

    for number in range(8):
        put(f"train/normal/IM-{number:04d}-0001.jpeg", jpeg(100 + number))
        put(f"train/Pneumonia/person{number}_virus_1.jpeg", jpeg(200 + number))
        put(f"test/NORMAL/IM-{500 + number:04d}-0001.jpeg", jpeg(300 + number))
        put(f"test/PNEUMONIA/person{500 + number}_bacteria_1.jpeg", jpeg(400 + number))
    for name, (data, why) in oddities().items():
        put(f"train/normal/{name}", data, why)
    put("test/NORMAL/damaged.jpeg", b"\xff\xd8 damaged", "unreadable")
    put("test/PNEUMONIA/pixel.png", encoded(film(51, 1, 1), "PNG"))
    for junk in ("train/.DS_Store", "train/normal/.DS_Store", "train/normal/._IM-0001-0001.jpeg", "Thumbs.db"):
        (root / junk).write_bytes(b"\0\0\0\1Bud1")
    (root / "test" / "OTHER").mkdir()
    (root / "test" / "OTHER" / "x.jpeg").write_bytes(jpeg(52))
    normal = root / "train" / "normal"
    (root.parent / "elsewhere.jpeg").write_bytes(jpeg(53))
    for link, target, why in (
        ("link.jpeg", root.parent / "elsewhere.jpeg", READ),
        ("dangling.jpeg", root / "nowhere.jpeg", "No such file"),
        ("itself.jpeg", normal / "itself.jpeg", "symbolic link"),
        ("endless.jpeg", Path("/dev/zero"), "pipe or device"),
    ):
        (normal / link).symlink_to(target)
        expected[f"train/normal/{link}"] = why
    (normal / "loop").symlink_to(root, target_is_directory=True)
    os.mkfifo(normal / "pipe.jpeg")
    expected["train/normal/pipe.jpeg"] = "pipe or device"
    put("train/normal/forbidden.jpeg", jpeg(54), "Permission denied").chmod(0)
    return expected


def few(root: Path, **counts: int) -> None:
    """A dataset with so many images of `split_LABEL`, each of a patient of its own."""
    for name, count in counts.items():
        folder = root.joinpath(*name.split("_"))
        folder.mkdir(parents=True)
        for number in range(count):
            named = f"IM-{number:04d}-0001" if folder.name == "NORMAL" else f"person{number}_virus_1"
            (folder / f"{named}.jpeg").write_bytes(jpeg(1000 * sum(map(ord, name)) + number))


def one_patient(root: Path) -> None:
    """Many images, all pneumonia of a single child."""
    few(root, train_NORMAL=6, test_NORMAL=2, test_PNEUMONIA=2)
    (root / "train" / "PNEUMONIA").mkdir()
    for number in range(6):
        (root / "train" / "PNEUMONIA" / f"person1_virus_{number}.jpeg").write_bytes(jpeg(60 + number))


SMALL: dict[str, tuple[Callable[[Path], None], str]] = {  # what it is, and what the sentence says; "" where it runs
    "ten images": (lambda root: few(root, train_NORMAL=3, train_PNEUMONIA=3, test_NORMAL=2, test_PNEUMONIA=2), ""),
    "no test folder": (lambda root: few(root, train_NORMAL=4, train_PNEUMONIA=4), ""),
    "test of one class": (lambda root: few(root, train_NORMAL=4, train_PNEUMONIA=4, test_NORMAL=3), ""),
    "an empty class": (lambda root: few(root, train_NORMAL=4, train_PNEUMONIA=0, test_NORMAL=2), "train/PNEUMONIA"),
    "one class": (lambda root: few(root, train_NORMAL=4, test_NORMAL=2), "train/PNEUMONIA"),
    "one patient": (one_patient, "single patient"),
    "an empty folder": (lambda root: root.mkdir(), "train/NORMAL"),
}


def like_anybody() -> tuple[str, ...] | None:
    """A command before which permissions count even for root; () where they do anyway, None where there is none."""
    if os.geteuid():
        return ()
    command = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
    works = shutil.which("setpriv") and subprocess.run([*command, "true"], capture_output=True).returncode == 0
    return command if works else None


def torture(above: Path) -> Findings:
    """The whole run and the small ones."""
    found, clone, data, before = Findings(), make_clone(above / "inputs"), above / "odd", like_anybody()
    expected = odd_dataset(data)
    if before is None:
        expected["train/normal/forbidden.jpeg"], before = READ, ()
        found.counts["no permission"] = "not tried: root may read everything, and setpriv cannot take that away here"

    def run(name: str, folder: Path) -> tuple[int, str]:
        words = ["--profile", "smoke", "--name", name, "--data", folder, "--set", *NETWORK]
        status = runs.start(clone, above / f"{name}.txt", *words, before=before).wait(runs.LIMIT)
        return status, (above / f"{name}.txt").read_text(encoding="utf-8", errors="replace")

    status, said = run("odd", data)
    found.expect(status == 0, f"the run over oddities: exit status {status}: {said[-1500:]}")
    if (clone.reports / "odd" / "manifest.csv").exists():
        check_manifest(clone.reports / "odd", expected, found)
    for number, (what, (make, sentence)) in enumerate(SMALL.items()):
        make(above / f"small-{number}")
        status, said = run(f"small-{number}", above / f"small-{number}")
        last = said.strip().splitlines()[-1] if said.strip() else ""
        print(f"  {what}: exit status {status}: {last}", flush=True)
        found.expect("Traceback" not in said, f"{what}: a traceback: {said[-1500:]}")
        found.expect((status == 0) == (not sentence), f"{what}: exit status {status}: {last}")
        found.expect(sentence in last, f"{what}: {last}")
        late = [stem for stem in runs.running(above / f"small-{number}.txt") if stem > "03"]
        found.expect(not sentence or not late, f"{what}: stopped as late as {late}")
    found.counts |= {"inputs tried": len(expected), "small datasets tried": len(SMALL)}
    return found


def check_manifest(folder: Path, expected: dict[str, str], found: Findings) -> None:
    """Every file has its row, left out where and why it has to be, and 01 counts those."""
    manifest = pd.read_csv(folder / "manifest.csv", keep_default_na=False).set_index("path")
    found.expect(set(manifest.index) == set(expected), f"rows: {set(manifest.index) ^ set(expected)}")
    for path in sorted(set(manifest.index) & set(expected)):
        row, why = manifest.loc[path], expected[path]
        right = (why in row["why"] and row["excluded"]) if why else not row["excluded"]
        found.expect(bool(right), f"{path!r} is {'left out' if row['excluded'] else 'taken'}: {row['why']}")
        found.expect("\n" not in row["why"], f"{path!r}: not one line: {row['why']}")
    page = (folder / "01_eda.html").read_text(encoding="utf-8")
    count = sum(bool(why) for why in expected.values())
    for said in (f"{len(expected):,} images are listed", f"{count} images are left out"):
        found.expect(said in page, f"01 does not say: {said}")
    found.expect("<b>&" not in page, "a file's name is markup in 01")
