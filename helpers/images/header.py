"""What a DICOM header says: how the pixels are stored, and what speaks against a prediction, in our words.

Nothing in it that could name a patient is repeated.
"""

from __future__ import annotations

import datetime
import math
import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pydicom
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.tag import Tag

from helpers.config import InputError

PHOTOMETRIC = "the DICOM header does not say what its greys mean: taken as black to white"
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
NOT_A_CHILD = "DICOM header gives an age above 6 years"
_CHEST = re.compile(
    "CHEST|THOR|TORAX|TORACE|TORAC|LUNG|PULM|POLMON|POUMON|BRUSTKORB|BRUSTRAUM|THX|CXR|KLATKA|PLUC|BORST|HRUDNIK"
    "|MELLKAS|AKCIGER|GOGUS|RIND|ГРУД|ОГК|ЛЕГК|胸|肺"
)
_OTHER = re.compile(  # parts that are no chest; a word that is in neither list says nothing
    r"\b(?:ABDOMEN|ABDOM|ANKLE|ARM|CALCANEUS|CLAVICLE|COCCYX|[CLST]-?SPINE|[BHLSW]WS|ELBOW|EXTREMITY|FEMUR|FINGER|FOOT"
    r"|FOREARM|HAND|HEAD|HIP|HUMERUS|JAW|KNEE|LEG|MANDIBLE|MAXILLA|NECK|ORBIT|PATELLA|PELVIS|RADIUS|SACRUM|SCAPULA"
    r"|SHOULDER|SINUS|SKULL|SPINE|STERNUM|THIGH|THUMB|TIBIA|TOE|ULNA|WRIST|TEETH|TOOTH|BREAST|BRAIN|FUSS|HUFTE|KNIE"
    r"|SCHADEL|BECKEN|SCHULTER|ELLENBOGEN|UNTERARM|OBERARM|HANDGELENK|MANO|PIE|RODILLA|CADERA|CRANEO|COLUMNA|HOMBRO"
    r"|CODO|MUNECA|TOBILLO|PELVE|JOELHO|QUADRIL|CRANIO|COLUNA|OMBRO|GENOU|MAIN|PIED|BASSIN|HANCHE|CRANE|EPAULE|COUDE"
    r"|POIGNET|CHEVILLE|RACHIS|GINOCCHIO|PIEDE|BACINO|ANCA|SPALLA|POLSO|CAVIGLIA|КИСТЬ|СТОПА|КОЛЕН\w*|ЧЕРЕП|ТАЗ)S?\b"
)
_LATERAL = re.compile(
    r"\b(?:[LR]?[ _-]?LAT|[LR]L|LATL|LATERAL(?:E|IS)?|LATERO|SEIT(?:LICH|L)?|PROFILO?|PERFIL|BOCZNE|БОК\w*)\b|侧|側"
)
_FRONTAL = re.compile(r"\b(?:PA|AP|P\.A|A\.P|FRONTAL\w*|FRENTE|FACE|DECUB\w*|DORSO|ПРЯМ\w*)\b|正")
_SIDE_VIEWS = {"399067008", "399173006", "399198007", "R-102CD", "R-10236", "R-10232"}  # SNOMED CT, and before it


class Layout(NamedTuple):
    """How the first frame is stored."""

    rows: int
    columns: int
    samples: int
    allocated: int  # bits
    stored: int  # of them used
    high: int  # the highest bit used
    signed: bool
    photometric: str


def numbers(part: pydicom.Dataset, name: str) -> list[float]:
    """The values of an element, NaN for what is no number; none where it is missing or empty."""
    element = part.get_item(name)
    value = getattr(element, "value", None)
    if isinstance(value, bytes) and dictionary_VR(Tag(name)) in ("DS", "IS"):
        value = value.decode("latin-1").strip(" \0").split("\\")
    elif isinstance(value, bytes):  # "US", or "US or SS", which nobody has to know
        order = "<u2" if element.is_little_endian else ">u2"  # type: ignore[attr-defined]  # it is a RawDataElement
        value = np.frombuffer(value, order).tolist() if len(value) in (2, 4, 6) else None
    if value is None or isinstance(value, pydicom.Sequence):
        return []
    many = list(value) if isinstance(value, list | pydicom.multival.MultiValue) else [value]
    return [_number(one) for one in many] if many != [""] else []


def _number(value: object) -> float:
    try:
        found = float(str(value).strip(" \0").replace(",", "."))
    except ValueError:
        return math.nan
    return found if math.isfinite(found) else math.nan


def number(part: pydicom.Dataset, name: str) -> float:
    """The first of `numbers`; NaN where there is none."""
    return next(iter(numbers(part, name)), math.nan)


def items(part: pydicom.Dataset, name: str) -> list[pydicom.Dataset]:
    """The items of a sequence; none where it is missing or no sequence."""
    value = _value(part, name)
    found = list(value) if isinstance(value, pydicom.Sequence) else []
    for item in found:
        check_kinds(item)
    return found


def text(part: pydicom.Dataset, name: str) -> str:
    """The value of an element in capitals without accents; "" where there is none."""
    value = _value(part, name)
    if value is None or isinstance(value, bytes | pydicom.Sequence):
        return ""
    plain = unicodedata.normalize("NFKD", str(value).upper())
    return "".join(c for c in plain if not unicodedata.combining(c)).strip(" \0")


def _value(part: pydicom.Dataset, name: str) -> object:
    try:
        return part.get(name)
    except Exception:  # pydicom raises whatever it likes on a value of a wrong kind, which says nothing then
        return None


def check_kinds(part: pydicom.Dataset) -> None:
    """Refuse a sequence where the standard has a single value.

    Where pydicom repeats such a value in a message, damage deep in it doubles the text with every level, until the
    memory is full.
    """
    for tag in part.keys():  # noqa: SIM118 - the elements themselves would be converted
        if part.get_item(tag).VR == "SQ" and dictionary_has_tag(tag) and dictionary_VR(tag) != "SQ":
            raise InputError("cannot be read as an image: as DICOM it is damaged: an element is of another kind.")


def layout(dicom: pydicom.Dataset, notes: list[str]) -> Layout:
    """The header's words on its pixels, gaps filled."""

    def whole(name: str, otherwise: float) -> int:
        value = number(dicom, name)
        return int(otherwise if math.isnan(value) else value)

    rows, columns = whole("Rows", 0), whole("Columns", 0)
    if rows < 1 or columns < 1:
        raise InputError("cannot be read as an image: its DICOM header lacks the number of rows or columns.")
    photometric = text(dicom, "PhotometricInterpretation").replace(" ", "_")
    samples = whole("SamplesPerPixel", 3 if photometric in _COLOURS else 1)
    if samples not in (1, 3):
        raise InputError(f"has {samples} values a pixel; only grey and colours of three are read.")
    grey = re.match("MONOCHROME_*([12])", photometric)
    if grey and samples == 1:
        photometric = f"MONOCHROME{grey[1]}"
    elif photometric == "PALETTE_COLOR" and samples == 1:
        photometric = "PALETTE COLOR"
    elif samples != 3 or not re.match("RGB|YBR_", photometric):
        notes.append(PHOTOMETRIC)
        photometric = "RGB" if samples == 3 else "MONOCHROME2"
    stored = whole("BitsStored", 0) or whole("HighBit", -1) + 1
    allocated = max(whole("BitsAllocated", 0), 8 * math.ceil(stored / 8) if stored > 1 else 0)
    if not allocated:
        raise InputError("cannot be read as an image: its DICOM header does not say how many bits a pixel has.")
    stored = stored if stored > 0 else allocated
    high = whole("HighBit", stored - 1)
    high = high if stored - 1 <= high < allocated else stored - 1
    signed = whole("PixelRepresentation", 0) == 1
    return Layout(rows, columns, samples, allocated, stored, high, signed, photometric)


def notes(dicom: pydicom.Dataset) -> Iterator[str]:
    """Why this file may not be what a chest model is for; in our words, but for the modality's code."""
    modality = text(dicom, "Modality")
    if modality not in ("", "CR", "DX", "RG"):
        code = f" ({modality})" if re.fullmatch("[A-Z]{2,4}", modality) else ""
        yield f"DICOM modality{code} is not that of a radiograph"
    part = text(dicom, "BodyPartExamined").replace("_", " ")
    for item in items(dicom, "AnatomicRegionSequence"):
        part += " " + text(item, "CodeMeaning")
    if _OTHER.search(part) and not _CHEST.search(part):
        yield "DICOM header names another body part than the chest"
    if _is_lateral(dicom):
        yield "lateral view, but the model knows frontal ones only"
    raw = "1.2.840.10008.5.1.4.1.1.1.1.1"  # digital X-ray image storage, for processing
    if text(dicom, "PresentationIntentType") == "FOR PROCESSING" or text(dicom, "SOPClassUID") == raw:
        yield "DICOM image for processing, not for presentation: its grey values are not those that a reader sees"
    years = age(dicom)
    if years is not None and years >= 7:
        yield NOT_A_CHILD


def _is_lateral(dicom: pydicom.Dataset) -> bool:
    """By any of four elements; words that name a frontal view too leave it open."""
    views = items(dicom, "ViewCodeSequence")
    words = [text(dicom, "ViewPosition"), text(dicom, "SeriesDescription")]
    words += [text(view, "CodeMeaning") for view in views]
    side_on = re.match(r"\W*[AP]\w*\W+[HF]", text(dicom, "PatientOrientation"))  # rows run to the front or the back
    coded = any(text(view, "CodeValue") in _SIDE_VIEWS for view in views)
    said = (word.replace("_", " ") for word in words)
    return bool(side_on) or coded or any(_LATERAL.search(word) and not _FRONTAL.search(word) for word in said)


def age(dicom: pydicom.Dataset) -> float | None:
    """Years, by the patient's age or else by the dates of birth and study; None where it is not known."""
    given = re.fullmatch(r"(\d{1,3}) *([YMWD]?)[A-Z]*", text(dicom, "PatientAge"))
    if given:
        years = int(given[1]) / {"": 1, "Y": 1, "M": 12, "W": 52.18, "D": 365.25}[given[2]]
    else:
        born = _date(text(dicom, "PatientBirthDate"))
        taken = (_date(text(dicom, f"{what}Date")) for what in ("Study", "Series", "Acquisition", "Content"))
        when = next(filter(None, taken), None)
        if not (born and when):
            return None
        years = (when - born).days / 365.25
    return years if 0 <= years < 120 else None


def _date(written: str) -> datetime.date | None:
    try:
        return datetime.datetime.strptime(re.sub("[.-]", "", written)[:8], "%Y%m%d").date()
    except ValueError:
        return None


def pixel_aspect(dicom: pydicom.Dataset) -> float:
    """Height of a pixel by its width; 1 where that is unknown."""
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"):
        sides = numbers(dicom, name)
        if len(sides) == 2 and min(sides) > 0:
            ratio = sides[0] / sides[1]
            return ratio if 0.1 <= ratio <= 10 else 1.0
    return 1.0
