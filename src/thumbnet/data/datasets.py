"""A data set ready to train on, and `load_dataset`, which finds it by name or path, converts it once and maps it."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thumbnet.data.cached_packs import is_download, load_arrays, load_pictures, load_published
from thumbnet.data.columns import columns_as_text, is_table
from thumbnet.data.names import (
    DECODING,
    EMBEDDED,
    SPECS,
    check_dataset_name,
    check_decoding,
    comes_as_pictures,
    folder_of,
)
from thumbnet.data.pack import SPLITS, Pack, fingerprint
from thumbnet.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from thumbnet.data.batches import LockedSplit, Split
    from thumbnet.progress import Progress


@dataclass(frozen=True)
class Dataset:
    """A data set ready to train on. `test` is locked: `evaluate(..., split="test")` opens and counts it."""

    name: str  # as given to `load_dataset`, a path where it was one
    classes: tuple[str, ...]  # in label order
    train: "Split"
    validation: "Split | None"
    test: "LockedSplit | None"
    fingerprint: str  # 16 hex digits that change when any pixel or label does
    fingerprint_of_training: str  # the same of all but the test images
    facts: dict[str, Any]  # JSON: licence, where it lies, what was ignored ...
    development: "Split"  # the training images before any were held out
    own_validation: "Split | None"  # the validation split that the set brought along
    copies_together: bool = False  # whether images that belong together were kept on one side where the set was cut
    left_out: tuple[str, ...] = ()  # training images that a list named, by file or number, of which none is in `train`
    # By split int64, a number for each stored image: those of one belong together.
    groups: Mapping[str, "Tensor"] = field(default_factory=dict)
    group_names: tuple[str, ...] = ()  # of each number, "" where it is that of a single image of no group
    # Folders: names of the stored images by split, in row order.
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __repr__(self) -> str:
        parts = {"training": self.train, "validation": self.validation, "test": self.test}
        counts = ", ".join(f"{len(split):,} {part}" for part, split in parts.items() if split is not None)
        return f"Dataset({self.name!r}: {counts} images of {len(self.classes)} classes)"

    @property
    def channels(self) -> int:
        return self.development.images.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.development.images.shape[2:]
        return height, width

    @property
    def folder(self) -> Path:
        """The folder that `files` are below: the one named, or the one that a table lies in."""
        return folder_of(self.facts["location"])

    @cached_property
    def together(self) -> "Tensor | None":
        """Which training images are equal or of one group; None if none are, and for published sets, cut as they always were."""
        from thumbnet.data.batches import together_in

        return None if self.name in SPECS else together_in(self.development, self.groups.get("train"))

    def with_validation(
        self,
        fraction: float,
        *,
        seed: int,
        folds: int = 0,
        fold: int = 0,
        copies_together: bool = True,
        leave_out: str | Path | Sequence[str] = (),
    ) -> "Dataset":
        """The same set with another part of its training images held out: `fraction`, or one of `folds` parts.

        Images that are equal or of one group are all held out or all trained on, except in published sets, which are cut as they
        always were, and where `copies_together` says that a run began before that was so. A set's own validation split is kept;
        it cannot be combined with folds. Of what is left to train on, the images that `leave_out` names, or a list in that file,
        are left out.
        """
        from thumbnet.data.leave_out import without

        cut = self.cut(fraction, seed=seed, folds=folds, fold=fold, copies_together=copies_together)
        return without(cut, leave_out) if leave_out else cut

    def cut(self, fraction: float, *, seed: int, folds: int, fold: int, copies_together: bool) -> "Dataset":
        """The same set held out anew, no image left out."""
        from thumbnet.data.batches import fold_of, hold_out

        if folds and self.own_validation is not None:
            raise UserError(f"{self.name} brings its own validation images; folds are for sets that do not")
        copies_together = copies_together and self.name not in SPECS
        together = self.together if copies_together and (folds or fraction) and self.own_validation is None else None
        if self.own_validation is not None:
            return replace(self, train=self.development, validation=self.own_validation, left_out=())
        if folds:
            train, held = fold_of(self.development, folds, fold, seed=seed, together=together)
        else:
            train, held = hold_out(self.development, fraction, seed=seed, together=together)
        made = replace(self, train=train, validation=held, copies_together=copies_together, left_out=())
        if "together" in vars(self):  # not to be looked for again in the same images
            vars(made)["together"] = self.together
        return made

    @property
    def trained_without(self) -> int:
        """How many images of `left_out` would be trained on otherwise; the others are held out."""
        held_out = 0 if self.own_validation is not None else len(self.validation or ())
        return len(self.development) - held_out - len(self.train)

    def groups_at(self, split: str, rows: "Tensor") -> "Tensor | None":
        """The groups of images of a split by their rows, int64; None where none was named."""
        groups = self.groups.get(self.stored_as(split))
        return None if groups is None else groups[rows.cpu()]

    @property
    def group_count(self) -> int | None:
        """How many groups the stored training images are of, each image of none counting as one; None where none was named."""
        return len(self.groups["train"].unique()) if "train" in self.groups else None

    @property
    def notes(self) -> list[str]:
        """What a person should hear before training: whose files stand in for a published set, what was left out of a folder,
        classes with very few images.
        """
        from thumbnet.data.balance import counts_by_class, few_images
        from thumbnet.data.groups import told_of_grouping, told_of_groups
        from thumbnet.data.names import alike_but_for_case
        from thumbnet.data.pictures import left_out
        from thumbnet.data.table import told_of_table

        few = few_images(counts_by_class(self.development.labels.cpu().numpy(), self.classes), "train")
        origin = self.facts.get("converted_from")
        cached = f"no files of {self.name} were named or found; it is taken from the cache, converted from {origin}"
        return [
            *([cached] if origin and not is_download(origin) else []),
            *left_out(self.facts).values(),
            *told_of_table(self.name, self.facts),
            *told_of_grouping(self.facts),
            *told_of_groups(self.facts.get("shared_groups", {})),
            *alike_but_for_case(self.classes),
            *([f"{few}; what is learnt of them is little"] if few else []),
        ]

    def files_of(self, split: str) -> Sequence[str]:
        """Names of the stored images that the rows of a split count; none where they did not come as files of their own."""
        return self.files.get(self.stored_as(split), ())

    def stored_as(self, split: str) -> str:
        """The stored split that the rows of a split count: validation images may be cut from the training images."""
        return "train" if split == "validation" and self.own_validation is None else split

    def in_memory(self) -> "Dataset":
        """The same set with its training and validation images read from disk now; else they are mapped."""
        return self.moved(lambda split: replace(split, images=split.images.clone()))

    def to(self, device: "torch.device") -> "Dataset":
        """The same set with its training and validation images on `device`."""
        return self.moved(lambda split: split.to(device))

    def moved(self, move: "Callable[[Split], Split]") -> "Dataset":
        """The same set with `move` applied to its images, once to each."""
        development = move(self.development)

        def of(split: "Split") -> "Split":
            shared = split.images is self.development.images
            return replace(development, rows=split.rows.to(development.rows.device)) if shared else move(split)

        return replace(
            self,
            train=of(self.train),
            validation=self.validation and of(self.validation),
            development=development,
            own_validation=self.own_validation and of(self.own_validation),
        )


def load_dataset(
    name: str | Path,
    *,
    data_dir: str | Path | None = None,
    validation: float = 0.1,
    seed: int = 0,
    image_size: int = 32,
    skip_broken: bool = False,
    group_by: str = "",
    columns: str | Mapping[str, str] = "",
    offline: bool = False,
    progress: "Progress | None" = None,
) -> Dataset:
    """A published data set by name, or a path: a folder of images with one folder per class, a .csv file that names images and
    their classes (table.py), or arrays (`read_arrays` in arrays.py).

    A `Path` is a path, whatever its name.

    The first use converts the files to a pack in the cache; later uses map it into memory. `data_dir` (or the variable
    THUMBNET_DATA) says where the published files lie; without it they are downloaded unless `offline`. `image_size`,
    `skip_broken` and `group_by` are for images in files; of those in whose paths below their class this regular expression finds
    the same (what its parentheses hold, where it has some) all are held out, or all trained on. `columns` names columns of a
    table, as `label=species,group=bird_id` or a mapping, for "image", "label", "split" and "group". `validation` and `seed`
    say what part of the training images is held out (`thumbnet.train` cuts anew, as its recipe says).
    Raises `UserError` on whatever the user can mend.
    """
    name = os.path.join(".", name) if isinstance(name, Path) and str(name) in SPECS else str(name)
    check_dataset_name(name)
    if name not in SPECS and data_dir is not None:
        raise UserError(f"data_dir {data_dir} is for published sets; {name} is a path, which is read where it is")
    if name == EMBEDDED and data_dir is not None:
        raise UserError(
            f"data_dir {data_dir} is for sets that come as files; {name} lies inside the package, leave it out"
        )
    are_pictures = comes_as_pictures(name)
    if isinstance(columns, Mapping):
        columns = columns_as_text(columns)
    asked = {"image_size": image_size, "skip_broken": skip_broken, "group_by": group_by, "columns": columns}
    check_decoding(**asked)
    unusual = [option for option, value in asked.items() if value != DECODING[option]]
    if unusual and not are_pictures:
        raise UserError(
            f"{unusual[0]} is for images in files; {name} comes as it was {'published' if name in SPECS else 'stored'}"
        )
    if columns and not is_table(name):
        raise UserError(f"columns is for tables; {name} is none, leave it out")
    if name == EMBEDDED:
        from thumbnet.data.embedded import read_fashion_mini

        pack, facts = read_fashion_mini(), {"location": "inside the package"}
    elif name in SPECS:
        pack, facts = load_published(name, None if data_dir is None else Path(data_dir), offline, progress)
    elif are_pictures:
        pack, facts = load_pictures(Path(name), image_size, skip_broken, group_by, columns, progress)
    else:
        pack, facts = load_arrays(Path(name), progress)
    return assemble(name, pack, facts).with_validation(validation, seed=seed)


def assemble(name: str, pack: Pack, facts: dict[str, Any]) -> Dataset:
    """A `Dataset` over the pack's arrays, all its training images in `train`."""
    import torch

    from thumbnet.data.batches import LockedSplit, whole
    from thumbnet.data.pack import array_sha256

    def split(part: str) -> "Split":
        return whole(torch.from_numpy(pack.arrays[f"{part}_images"]), torch.from_numpy(pack.arrays[f"{part}_labels"]))

    sums = pack.description.get("sha256") or {key: array_sha256(array) for key, array in pack.arrays.items()}
    spec = SPECS.get(name)
    about = {"licence": spec.licence, "homepage": spec.homepage} if spec else {"licence": "not known here"}
    kept_apart = ("classes", "sha256", "files", "converted_from", "named", "group_names")
    # Older packs lack groups of other than training images, and runs on them shall know their data again.
    telling = {key: value for key, value in sums.items() if key not in ("validation_groups", "test_groups")}
    described = {key: value for key, value in pack.description.items() if key not in kept_apart}
    has_test = "test_images" in pack.arrays
    return Dataset(
        name=name,
        classes=tuple(pack.description["classes"]),
        train=split("train"),
        validation=None,
        test=LockedSplit(len(pack.arrays["test_labels"]), lambda: split("test")) if has_test else None,
        fingerprint=fingerprint(telling),
        fingerprint_of_training=fingerprint(
            {key: value for key, value in telling.items() if not key.startswith("test_")}
        ),
        facts=about | described | facts,
        development=split("train"),
        own_validation=split("validation") if "validation_images" in pack.arrays else None,
        groups={
            part: torch.from_numpy(pack.arrays[f"{part}_groups"]) for part in SPLITS if f"{part}_groups" in pack.arrays
        },
        group_names=tuple(pack.description.get("group_names", ())),
        files=pack.description.get("files", {}),
    )
