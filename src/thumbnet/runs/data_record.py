"""What a run folder's data.json says of the data: their name, where they lay, and how they are known and found again."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from thumbnet.data.columns import is_table
from thumbnet.data.datasets import load_dataset
from thumbnet.data.names import SPECS, location_of
from thumbnet.data.pack import LARGEST_SIDE, MOST_CLASSES
from thumbnet.errors import BrokenImage, UserError
from thumbnet.reading import Fields, read_json
from thumbnet.words import printable

if TYPE_CHECKING:
    from thumbnet.data.datasets import Dataset

# What readers rely on.
FIELDS: Fields = {
    "name": str, "location": str, "classes": list, "channels": int, "image_size": list, "fingerprint": str,
}  # fmt: skip
MOST_CHANNELS = 16  # more is a damaged file
READ_BY = {"group_by": "group_by", "columns": "columns_named"}  # options of `load_dataset`, and what notes them


class DataRecord(dict[str, Any]):
    """The content of data.json, and what can be asked of it."""

    @staticmethod
    def of(data: "Dataset") -> "DataRecord":
        """What is written down of the data of a run, cut as its recipe says."""
        return DataRecord(
            name=data.name,
            channels=data.channels,
            image_size=list(data.image_size),
            fingerprint=data.fingerprint,
            fingerprint_of_training=data.fingerprint_of_training,
            classes=list(data.classes),
            train=len(data.train),
            validation=len(data.validation or ()),
            test=len(data.test or ()),
            copies_together=data.copies_together,
            left_out=list(data.left_out),
            trained_without=data.trained_without,
            **({} if data.group_count is None else {"groups": data.group_count}),
            **data.facts,
        )

    @staticmethod
    def read(path: Path) -> "DataRecord":
        """The record in a file. Raises `UserError` where it asks for what no network is built for, before memory is taken."""
        record = DataRecord(read_json(path, FIELDS))
        classes, sides, names = record["classes"], record["image_size"], record.get("left_out", [])
        if not (2 <= len(classes) <= MOST_CLASSES and all(isinstance(name, str) for name in classes)):
            raise UserError(f"{path} is damaged: its classes are no list of 2 to {MOST_CLASSES} names")
        if not (len(sides) == 2 and all(type(side) is int and 0 < side <= LARGEST_SIDE for side in sides)):
            raise UserError(f"{path} is damaged: its image_size is {str(sides)[:40]}")
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise UserError(f"{path} is damaged: its left_out is no list of names")
        titles = record.get("columns", {})
        if not (isinstance(titles, dict) and all(isinstance(title, str) for title in titles.values())):
            raise UserError(f"{path} is damaged: its columns are no names")
        for fact in READ_BY.values():
            if not isinstance(record.get(fact, ""), str):
                raise UserError(f"{path} is damaged: its {fact} is {str(record[fact])[:40]}")
        if not 0 < record["channels"] <= MOST_CHANNELS:
            raise UserError(f"{path} is damaged: its channels are {record['channels']}")
        return record

    @property
    def cut(self) -> dict[str, Any]:
        """What of the way they were cut the recipe does not tell, as `Dataset.with_validation` takes it."""
        return {"copies_together": bool(self.get("copies_together")), "leave_out": self.left_out}

    @property
    def left_out(self) -> tuple[str, ...]:
        """The training images that a list named when the run began; the list may be another now."""
        return tuple(self.get("left_out", ()))

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self["classes"])

    @property
    def telling_columns(self) -> dict[str, str]:
        """The titles of a table that said the class and the group; other tables may have the same.

        Which images are meant, and in which splits, each table says in its own way.
        """
        return {purpose: title for purpose, title in self.get("columns", {}).items() if purpose in ("label", "group")}

    # ---------------------------------------------------------------- which data they are

    @property
    def on_pictures(self) -> bool:
        """Whether the images were pictures in a folder, decoded and resized, of which some could have been broken."""
        return "broken" in self

    @property
    def on_published_set(self) -> bool:
        """Whether the name is a published one; a folder of pictures may have been called the same before there was one."""
        return self["name"] in SPECS and not self.on_pictures

    @property
    def as_typed(self) -> str:
        """What to type for these data."""
        return str(self["location" if self["name"] in SPECS and self.on_pictures else "name"])

    @property
    def title(self) -> str:
        """What they are called where a file goes to others: of a path the last part, not the folders it lies in."""
        name = Path(self["name"]).name
        return printable(Path(self["location"]).name if name in ("", "..") else name)

    @property
    def told_apart(self) -> str:
        """Their name, fingerprint and how they were read, which tell them from others."""
        read = [f"({option} {self[fact]!r})" for option, fact in READ_BY.items() if fact in self]
        return " ".join([self["name"], self["fingerprint"], *read])

    def is_of(self, dataset: str) -> bool:
        """Whether this is the data set that a person names, by its published name or a path, however that is written."""
        if dataset in SPECS or self.on_published_set:
            return dataset == self["name"] and self.on_published_set
        if not Path(dataset).exists():  # gone; only its name can be compared
            return bool(dataset == self["name"])
        return str(location_of(dataset)) == self["location"]

    def same_training_images(self, other: "DataRecord") -> bool:
        """Whether both were cut from the same images; test images may have been added in between."""
        key = "fingerprint_of_training"
        return self["fingerprint"] == other["fingerprint"] or (key in self and self[key] == other.get(key))

    # ---------------------------------------------------------------- finding them again, for the run in the folder `whose`

    def find(self, data_dir: str | Path | None = None, *, whose: Path, **options: Any) -> "Dataset":
        """The data set, whole, where it lay or in `data_dir`. Raises `UserError` where it is gone.

        `options` are those of `load_dataset`; where they are not given, image size and the like are as they were.
        """
        name, before = self["name"], Path(str(self.get("converted_from", self["location"])))
        if not self.on_published_set:
            if data_dir is None and not before.exists():
                raise UserError(
                    f"the images of {whose} were {before}, which is gone; say where they are now with --data-dir"
                )
            name, data_dir = str(location_of(data_dir or before)), None
            if "columns_named" in self and not is_table(name):
                raise UserError(
                    f"the images of {whose} were named by the table {before.name}, and {name} is none; give that file"
                )
        elif data_dir is None and before.exists():
            data_dir = before if before.is_dir() else before.parent
        as_before: dict[str, Any] = {}
        if self.on_pictures:
            as_before = {"image_size": self["image_size"][0], "skip_broken": bool(self.get("broken"))}
            as_before |= {option: self[fact] for option, fact in READ_BY.items() if fact in self}
        try:
            return load_dataset(name, data_dir=data_dir, validation=0, **(as_before | options))
        except BrokenImage as error:
            raise UserError(f"{error.fault}; when {whose} was trained, it was readable or not there") from error

    def check(self, data: "Dataset", *, whose: Path, split: str = "validation") -> None:
        """Raise `UserError` for data of other classes or training images, on whose `split` the run cannot be measured then.

        An older run did not note which images were its training images; its test split is measured whatever was changed.
        """
        if data.classes != self.classes:
            raise UserError(
                f"{data.name} has the classes {first_of(data.classes)}, the run {whose} {first_of(self.classes)}"
            )
        key = "fingerprint_of_training" if "fingerprint_of_training" in self else "fingerprint"  # of older runs
        if (now := getattr(data, key)) == self[key]:
            return
        for option, fact in READ_BY.items():
            if (before := self.get(fact, "")) != (given := data.facts.get(fact, "")):
                raise UserError(
                    f"{data.name} was read with {option} {given!r}, for the run {whose} with {before!r}; give that"
                )
        if split != "test":
            raise UserError(
                f"{data.name} has changed since the run {whose} (fingerprint {now}, then {self[key]}), so its held-out "
                "images are not known; undo what was changed, or train again"
            )
        if key == "fingerprint_of_training":
            raise UserError(
                f"the training or validation images of {data.name} have changed since the run {whose} (fingerprint {now}, then "
                f"{self[key]}), so the test images may be among those it was trained on; undo what was changed, or train again"
            )


def first_of(names: tuple[str, ...]) -> str:
    """The first few names."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
