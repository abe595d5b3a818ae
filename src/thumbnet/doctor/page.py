"""The gallery of what the doctor found, as one HTML file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from thumbnet.doctor.dataset import Diagnosis, findings, stored_splits
from thumbnet.doctor.duplicates import Place
from thumbnet.doctor.labels import told_of_label
from thumbnet.report.page import render, written
from thumbnet.report.pictures import as_thumbnail

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset

SHOWN = 60  # of each kind


def write_doctor_page(data: "Dataset", found: Diagnosis, path: Path) -> Path:
    """Pairs of duplicates, those across splits first, suspect labels and constant images, with their places or files."""
    splits = stored_splits(data)

    def entry(place: Place, words: str = "") -> dict[str, Any]:
        images, labels = splits[place.split]
        label = data.classes[labels[place.row]]
        names = data.files.get(place.split)
        where = names[place.row] if names else f"{place.split} {place.row}"
        return {
            "picture": as_thumbnail(images[place.row], f"{label}, {where}"),
            "label": words or label,
            "where": where,
        }

    near = sorted(found.near, key=lambda pair: (not pair.across, pair.same_label, -pair.similarity))
    exact = sorted(found.exact, key=lambda group: len({place.split for place in group}) == 1)
    page = render(
        "doctor.html",
        title=f"{data.name}: state of the data",
        findings=findings(found),
        balance=found.balance,
        exact=[[entry(place) for place in group[:4]] for group in exact[:SHOWN]],
        exact_total=len(found.exact),
        near=[
            {
                "pair": [entry(pair.first), entry(pair.second)],
                "about": f"correlation {pair.similarity:.3f}{', mirrored' if pair.mirrored else ''}",
                "odd": not pair.same_label,
            }
            for pair in near[:SHOWN]
        ],
        near_total=len(found.near),
        suspects=[
            {
                "entry": entry(row.place, row.label),
                "about": told_of_label(row),
            }
            for row in (found.labels.suspects if found.labels else ())[:SHOWN]
        ],
        checked=found.labels,
        constant=[entry(place) for place in found.constant[:SHOWN]],
        shown=SHOWN,
    )
    return written(path, page)
