"""Fetch, verify, convert once and describe a data set."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from thumbnet.cli.options import Data, DataFlags, Json, described, given, print_json, show
from thumbnet.data.datasets import load_dataset
from thumbnet.data.names import SPECS, check_dataset_name

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset


@described
def data(
    dataset: str,
    /,
    *,
    options: Data = DataFlags(),  # noqa: B008
    json: Json = False,
) -> None:
    """Fetch, verify and convert a data set, and print its classes, counts, licence and location.

    Parameters
    ----------
    dataset
        a name from `thumbnet list datasets`, a folder of class folders, a .csv file that names images and their classes
        or has their pixels, an .npz file or a folder of IDX files
    """
    check_dataset_name(dataset)

    from thumbnet.data.pack import verify_pack
    from thumbnet.progress import reporter_for_terminal

    with reporter_for_terminal() as reporter:
        loaded = load_dataset(dataset, validation=0, progress=reporter.loading, **given(options))
        pack = Path(loaded.facts.get("pack", ""))
        if pack.is_file():
            reporter.say("comparing its checksums")
            verify_pack(pack)
    described = describe(loaded)
    if json:
        print_json(described)
    else:
        show("\n".join(lines(described)))


def describe(loaded: "Dataset") -> dict[str, Any]:
    """What there is to know, as JSON."""
    import torch

    labels = loaded.development.labels
    counts = torch.bincount(labels, minlength=len(loaded.classes)).tolist()
    return {
        "name": loaded.name,
        "title": SPECS[loaded.name].title if loaded.name in SPECS else "images of your own",
        "images": {
            "train": len(loaded.development),
            "validation": len(loaded.own_validation or ()),
            "test": len(loaded.test or ()),
        },
        "channels": loaded.channels,
        "image_size": list(loaded.image_size),
        "classes": dict(zip(loaded.classes, counts, strict=True)),
        "fingerprint": loaded.fingerprint,
        "notes": loaded.notes,
        **({} if loaded.group_count is None else {"groups": loaded.group_count}),
        **loaded.facts,
    }


def lines(described: dict[str, Any]) -> list[str]:
    """The same for people."""
    from thumbnet.data.pictures import left_out

    images, (height, width) = described["images"], described["image_size"]
    kinds = {1: "grey", 3: "RGB"}[described["channels"]]
    validation = f", {images['validation']:,} validation" if images["validation"] else " (validation is cut from them)"
    resized = ", cropped and resized" if "broken" in described else ""
    text = [
        f"{described['name']}: {described['title']}",
        f"images       {images['train']:,} training{validation}, {images['test']:,} test; {height} x {width} {kinds}{resized}",
        f"licence      {described['licence']}",
        f"location     {described['location']}",
    ]
    if columns := described.get("columns"):
        text.append(f"columns      {', '.join(f'{title} ({purpose})' for purpose, title in columns.items())}")
    if "groups" in described:
        # A note tells of those that are not.
        apart = "" if described.get("shared_groups") else ", none of them both trained on and held out"
        text.append(f"groups       {described['groups']:,} of training images{apart}")
    if "pack" in described:
        text.append(f"converted    {described['pack']}")
    text.append(f"fingerprint  {described['fingerprint']}")
    for what in ("ignored", "broken"):
        if names := described.get(what):
            text.append(f"{what:11}  {len(names)}: {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}")
    shown = left_out(described).values()  # above, with more names
    text += [f"note         {note}" for note in described["notes"] if note not in shown]
    text.append(f"{len(described['classes'])} classes, training images each")
    width = max(len(name) for name in described["classes"])
    text += [f"  {name:{width}}  {count:>7,}" for name, count in described["classes"].items()]
    return text
