"""Tables of pixels: one image per line, in a column for each pixel or in one for all."""

import numpy as np
import pytest

from conftest import CPU
from conftest import thumbnet as command
from thumbnet.data.arrays import read_arrays
from thumbnet.data.datasets import load_dataset
from thumbnet.data.labelled import labelled_images
from thumbnet.data.names import comes_as_pictures, exists
from thumbnet.data.pixel_table import is_pixel_table
from thumbnet.data.unlabelled import unlabelled_images
from thumbnet.errors import UserError
from thumbnet.judging.evaluation import measure
from thumbnet.recipes import recipe
from thumbnet.training.loop import train

PIXELS = np.arange(4 * 9, dtype=np.uint8).reshape(4, 9) * 7


def write(path, *, titles=None, labels=(3, 10, 3, 10), pixels=PIXELS, last=False, splits=None, separator=","):
    """A table with a column for each pixel, and the label before or after them."""
    titles = titles or [f"pixel{place}" for place in range(pixels.shape[1])]
    lines = []
    for place, (row, label) in enumerate(zip([titles, *pixels.tolist()], ["label", *labels], strict=True)):
        cells = [*row, label] if last else [label, *row]
        lines.append([*cells, *([["split", *splits][place]] if splits else [])])
    path.write_text("\n".join(separator.join(map(str, line)) for line in lines) + "\n")
    return path


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("titles", [None, [f"{row}x{column}" for row in (1, 2, 3) for column in (1, 2, 3)]])
@pytest.mark.parametrize("separator", [",", ";"])
def test_a_column_for_each_pixel(tmp_path, titles, last, separator):
    pack = read_arrays(write(tmp_path / "train.csv", titles=titles, last=last, separator=separator))
    assert (pack.arrays["train_images"] == PIXELS.reshape(4, 1, 3, 3)).all()
    assert pack.arrays["train_labels"].tolist() == [0, 1, 0, 1] and pack.description["classes"] == ["3", "10"]


def test_one_column_for_all_pixels_and_splits_as_fer2013_has_them(tmp_path):
    usage = ["Training", "Training", "Training", "PublicTest", "PrivateTest"]
    pixels = np.vstack([PIXELS, PIXELS[:1] + 1])
    rows = [f"{place % 2},{' '.join(map(str, row))},{usage[place]}" for place, row in enumerate(pixels.tolist())]
    (tmp_path / "faces.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]) + "\n\n")
    pack = read_arrays(tmp_path / "faces.csv")
    assert {name: len(array) for name, array in pack.arrays.items() if name.endswith("images")} == {
        "train_images": 3, "validation_images": 1, "test_images": 1,
    }  # fmt: skip
    assert (pack.arrays["test_images"][0, 0].ravel() == pixels[4]).all() and pack.arrays["test_labels"].tolist() == [0]
    assert labelled_images(tmp_path / "faces.csv", ("0", "1")).images.shape == (1, 3, 3, 1)


def test_pixels_are_in_the_order_of_their_numbers_wherever_their_columns_stand(tmp_path):
    order = [3, 0, 8, 1, 7, 2, 6, 4, 5]
    path = write(tmp_path / "t.csv", pixels=PIXELS[:, order], titles=[f"pixel{number}" for number in order])
    assert (read_arrays(path).arrays["train_images"] == PIXELS.reshape(4, 1, 3, 3)).all()
    titles = [f"{place // 3 + 1}x{place % 3 + 1}" for place in order]
    path = write(tmp_path / "u.csv", pixels=PIXELS[:, order], titles=titles)
    assert (read_arrays(path).arrays["train_images"] == PIXELS.reshape(4, 1, 3, 3)).all()


def test_groups_of_tables_of_pixels_and_of_arrays_are_kept_together(tmp_path):
    path = tmp_path / "t.csv"
    rows = [f"{place % 2},{'Pp'[place % 2]}{place % 3} ,{place},2,3,4" for place in range(12)]
    path.write_text("\n".join(["label,patient_id,pixel1,pixel2,pixel3,pixel4", *rows]) + "\n")
    images = np.arange(12 * 4, dtype=np.uint8).reshape(12, 2, 2)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(12) % 2, groups=np.arange(12) % 3)
    for data in (load_dataset(path), load_dataset(tmp_path / "a.npz")):
        assert data.groups["train"].tolist() == [0, 1, 2] * 4
        cut = data.with_validation(0, seed=0, folds=3, fold=1)
        assert {row % 3 for row in cut.validation.rows.tolist()} == {row % 3 for row in range(3)} - {
            row % 3 for row in cut.train.rows.tolist()
        }
    alone = np.array(["none", "NaN", "none", *"abcdefghA"])
    np.savez(tmp_path / "d.npz", images=images, labels=np.arange(12) % 2, groups=alone)
    assert load_dataset(tmp_path / "d.npz").groups["train"].tolist() == [*range(11), 3]
    np.savez(tmp_path / "b.npz", images=images, labels=np.arange(12) % 2, groups=np.arange(11))
    with pytest.raises(
        UserError, match=r"training groups are int64 of shape \(11,\); give a number or name for each image"
    ):
        load_dataset(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", images=images, labels=np.arange(12) % 2, groups=np.arange(12), test_images=images[:2],
             test_labels=np.arange(2), test_groups=np.array([3, 99]))  # fmt: skip
    told = "1 group has training and test images; what is measured on these looks too good"
    data = load_dataset(tmp_path / "c.npz", validation=0.5)
    assert told in data.notes
    made = recipe("general", widths=(8, 16, 16), epochs=1, batch_size=4, validation=0.5, resolution=(8.0,))
    run, heard = train(made, data, tmp_path / "run", machine=CPU), []
    for split in ("validation", "test"):
        measure(run, split=split, machine=CPU, say=heard.append)
    assert heard == [told]


def test_test_images_that_come_later_do_not_make_the_training_images_others(tmp_path):
    head, rows = (
        "label,split,patient,pixel1,pixel2,pixel3,pixel4",
        [f"{n % 2},train,P{n % 3},{n},2,3,4" for n in range(12)],
    )
    path = tmp_path / "t.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    before = load_dataset(path)
    path.write_text("\n".join([head, "0,test,P9,1,1,1,1", *rows, "1,test,P1,9,9,9,9", ",test,P1,9,9,9,8"]) + "\n")
    after = load_dataset(path)
    assert (after.fingerprint_of_training, len(after.test)) == (before.fingerprint_of_training, 2)
    assert after.fingerprint != before.fingerprint


def test_arrays_that_were_converted_before_they_could_have_groups_are_converted_again(tmp_path, monkeypatch):
    monkeypatch.setenv("THUMBNET_CACHE", str(tmp_path / "cache"))
    images = np.arange(12 * 4, dtype=np.uint8).reshape(12, 2, 2)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(12) % 2, groups=np.arange(12) % 3)
    load_dataset(tmp_path / "a.npz")
    [pack] = (tmp_path / "cache" / "packs").glob("*.safetensors")
    assert pack.name.startswith("arrays-a-v3-")


def test_excels_own_line_on_separators_is_read(tmp_path):
    path = write(tmp_path / "t.csv", separator=";")
    path.write_text("sep=;\n" + path.read_text())
    assert len(read_arrays(path).arrays["train_labels"]) == 4
    path.write_text('"' + "x" * 140_000 + '",label\n')
    assert not is_pixel_table(path)
    with pytest.raises(UserError, match=r"cannot read .*field larger than field limit"):
        load_dataset(path)


def test_labels_may_be_names(tmp_path):
    data = load_dataset(write(tmp_path / "t.csv", labels=("eel", "cat", "eel", "cat")), validation=0)
    assert data.classes == ("cat", "eel") and data.train.labels.tolist() == [1, 0, 1, 0]
    mixed = load_dataset(
        write(tmp_path / "m.csv", labels=("1", "2", "1", "2"), splits=["train", "train", "train", "test"])
    )
    assert mixed.classes == ("1", "2") and len(mixed.test) == 1


def test_a_table_of_pixels_is_no_table_of_pictures(tmp_path):
    pixels = write(tmp_path / "t.csv")
    (tmp_path / "p.csv").write_text("image,label,3x3,pixel 1\na.png,cat,1,2\n")
    assert not comes_as_pictures(str(pixels)) and comes_as_pictures(str(tmp_path / "p.csv"))
    assert exists(str(pixels)) and not exists(str(tmp_path / "absent.csv"))
    with pytest.raises(UserError, match=r"image_size is for images in files; .* comes as it was stored"):
        load_dataset(pixels, image_size=16)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("label,{}\n1,{}", "line 2: pixels are whole numbers from 0 to 255, one in each column"),
        ("label,{}\n1,256,2,3,4\n", r"line 2: pixels are whole numbers from 0 to 255, one in each column \(bytes must be"),
        ("label,{}\n1,-1,2,3,4\n", "line 2: pixels are whole numbers"),
        ("label,{}\n1,0.5,2,3,4\n", r"line 2: pixels are whole numbers .* '0.5'\)"),
        ("label,{}\n0,1,2,3,4\n1,1,2,3\n", "line 3: pixels are whole numbers from 0 to 255, one in each"),
        ("label,{}\n", "has no line of pixels below the first; add the images"),
        ("label,{}\n,1,2,3,4\n", "line 2: it has no class; add it or delete the row"),
        ("{}\n1,2,3,4\n", r"has pixels and does not say which column has the classes; call it label \(it has no other column\)"),
        ("age,size,{}\n1,1,1,2,3,4\n", r"does not say which column has the classes; call it label \(it has 'age', 'size'\)"),
        ("label,{},pixel5\n1,1,2,3,4,5\n", "has images of 5 pixels, which is no square of grey ones; store others as an .npz"),
        ("label,pixels\n1,1 2 3 4\n0,1 2 3\n", "line 3: 3 pixels after 4; make all images of one size"),
        ("label,split,{}\n1,dev2,1,2,3,4\n0,train,1,2,3,4\n", "line 2: its split is 'dev2'; give train, validation or test"),
        ("label,pixel0,pixel2,pixel5,pixel9\n1,1,2,3,4\n",
         "has 4 columns of pixels, pixel0 to pixel9, so some are missing or there twice; give each once"),
        ("label,label,{}\n1,2,1,2,3,4\n", "has two columns 'label'; rename one"),
        ("label,split,{}\n1,test,1,2,3,4\n", "has no training images; expected a line per image, with a column label"),
        ("label,{}\n1,1,2,3,4\n1,1,2,3,4\n", "has 1 class; a classifier needs 2"),
    ],
)  # fmt: skip
def test_tables_of_pixels_that_do_not_fit_are_refused_in_one_line(tmp_path, text, told):
    path = tmp_path / "t.csv"
    path.write_text(text.replace("{}", "pixel1,pixel2,pixel3,pixel4"))
    with pytest.raises(UserError, match=told) as error:
        read_arrays(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_what_is_no_text_is_refused(tmp_path):
    path = write(tmp_path / "t.csv")
    path.write_bytes(path.read_bytes() + b"\xff\n")
    with pytest.raises(UserError, match=r"cannot read .* it is no text in UTF-8; save it as such"):
        read_arrays(path)


def test_too_many_pixels_are_refused_before_they_are_all_read(tmp_path, monkeypatch):
    from thumbnet.data import pixel_table

    monkeypatch.setattr(pixel_table, "LARGEST_ARRAYS", 20)
    with pytest.raises(UserError, match="line 4: more than 0 GiB of images; make it smaller"):
        read_arrays(write(tmp_path / "t.csv"))


def test_the_command_trains_on_a_table_of_pixels(tmp_path):
    random = np.random.default_rng(0)
    labels = np.arange(80) % 2
    pixels = (labels[:, None] * 100 + random.integers(0, 100, (80, 64))).astype(np.uint8)
    write(tmp_path / "digits.csv", labels=labels.tolist(), pixels=pixels)
    done = command(
        "train", "digits.csv", "--out", "run", "--epochs", "4", "--widths", "8", "16", "16", "--batch-size", "16",
        "--no-report", "--threads", "1", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert command("evaluate", "run", cwd=tmp_path).returncode == 0
    said = command("predict", "run", "digits.csv", "--format", "csv", cwd=tmp_path).stdout.splitlines()
    right = [row.split(",")[1] == str(label) for row, label in zip(said[1:], labels, strict=True)]
    assert said[5].startswith("digits.csv:4,") and sum(right) > 70
    few = (tmp_path / "digits.csv").read_text().splitlines()[:3]
    (tmp_path / "few.csv").write_text("\n".join(few) + "\n")
    done = command("predict", "run", "few.csv", "--explain", "why", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in (tmp_path / "why").iterdir()) == ["few.csv-0.png", "few.csv-1.png"]


def test_images_of_arrays_are_classified_by_number(tmp_path):
    images = np.zeros((6, 3, 3), np.uint8)
    images[:4], images[4:] = PIXELS.reshape(4, 3, 3), 255
    unlabelled = write(tmp_path / "test.csv", pixels=PIXELS)
    unlabelled.write_text("\n".join(line.partition(",")[2] for line in unlabelled.read_text().splitlines()) + "\n")
    found = unlabelled_images(unlabelled)
    assert found.names == [f"{unlabelled}:{row}" for row in range(4)]
    assert (np.stack([np.asarray(image) for image in found.images]) == images[:4]).all()
    np.savez(tmp_path / "two.npz", train_images=images[:4], train_labels=[0, 1, 0, 1], test_images=images[4:])
    found = unlabelled_images(tmp_path / "two.npz")
    assert (len(found.images), found.note) == (2, f"of {tmp_path / 'two.npz'} the test images are taken")
    colours = np.arange(2 * 3 * 8 * 8, dtype=np.uint8).reshape(2, 3, 8, 8)
    np.savez(tmp_path / "rgb.npz", images=colours)
    assert (np.asarray(unlabelled_images(tmp_path / "rgb.npz").images[1]) == colours[1].transpose(1, 2, 0)).all()
    np.savez(tmp_path / "none.npz", labels=[1, 2])
    with pytest.raises(UserError, match="has no images, only labels; give a file that has some"):
        unlabelled_images(tmp_path / "none.npz")
