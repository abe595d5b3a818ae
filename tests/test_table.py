"""Tables of pictures: columns by their names, files found below the table, splits, and every refusal."""

import json
import os

import pytest

from conftest import thumbnet as command
from tables import paint, patients
from thumbnet.data.datasets import load_dataset
from thumbnet.data.finding import by_ends
from thumbnet.data.images import decode_image
from thumbnet.data.labelled import labelled_images
from thumbnet.data.pictures import pictures_signature, read_pictures
from thumbnet.data.table import list_table, read_images
from thumbnet.errors import UserError
from thumbnet.report.sections import reproduce
from thumbnet.runs.run import Run

PETS = "image,label\na.png,cat\nb.png,dog\nc.png,cat\n"


def named(path):
    """What a table says, as (file, class) by split."""
    listing = list_table(path)
    return {split: [(name, listing.classes[label]) for name, label in rows] for split, rows in listing.images.items()}


# --- columns -------------------------------------------------------------------------------------------------------


def test_pictures_are_read_in_the_order_of_the_table_and_classes_sorted(pets):
    pack = read_pictures(list_table(pets("image,label\nc.png,10\nb.png,9\na.png,10\n")), image_size=4)
    assert pack.arrays["train_images"][:, 0, 0, 0].tolist() == [30, 20, 10]
    assert pack.arrays["train_labels"].tolist() == [1, 0, 1] and pack.description["classes"] == ["9", "10"]
    assert pack.description["files"] == {"train": ["c.png", "b.png", "a.png"]}
    assert pack.description["broken"] == [] and json.loads(json.dumps(pack.description)) == pack.description


@pytest.mark.parametrize(
    "titles",
    ["file_name,label", "File Name,Class", "filepaths,labels", "image_id,dx", "id,breed", "Path,ClassId", "img,has_cactus",
     "picture,kind"],
)  # fmt: skip
def test_columns_are_known_by_many_names_and_where_they_are_the_only_ones(pets, titles):
    path = pets(PETS.replace("image,label", titles))
    assert named(path) == {"train": [("a.png", "cat"), ("b.png", "dog"), ("c.png", "cat")]}
    assert list(list_table(path).facts["columns"].values()) == titles.split(",")


def test_the_first_name_that_is_known_is_taken_and_the_other_columns_are_told(pets):
    rows = "0,cat,a.png,4\n1,dog,b.png,5\n0,cat,c.png,6\n"
    data = load_dataset(pets("class id,labels,filepaths,age\n" + rows), image_size=4, validation=0)
    assert data.classes == ("cat", "dog")
    assert "filepaths (image), labels (label) are read, and not class id, age" in " ".join(data.notes)
    assert not any("are read" in note for note in load_dataset(pets(PETS), validation=0).notes)


@pytest.mark.parametrize(("separator", "name"), [(";", "labels.csv"), ("\t", "labels.TSV")])
def test_other_separators_and_a_mark_of_bytes_are_read(pets, separator, name):
    path = pets("\ufeff" + PETS.replace(",", separator), name)
    assert [label for _, label in named(path)["train"]] == ["cat", "dog", "cat"]


def test_a_column_for_each_class_says_which_one_it_is(pets):
    path = pets("image, cat, dog\na.png,1.0,0.0\nb.png,0,1\nc.png,1,\n")
    assert named(path) == {"train": [("a.png", "cat"), ("b.png", "dog"), ("c.png", "cat")]}
    assert list_table(path).facts["columns"]["label"] == "one for each of 2 classes"


def test_splits_are_known_by_many_names(pets):
    path = pets("image,label,data set\na.png,cat,Train\nb.png,dog,training\nc.png,dog,VALID\n")
    paint(path.parent, "d.png")
    path.write_text(path.read_text() + "d.png,cat,test\n")
    assert named(path) == {
        "train": [("a.png", "cat"), ("b.png", "dog")], "validation": [("c.png", "dog")], "test": [("d.png", "cat")],
    }  # fmt: skip
    data = load_dataset(path, image_size=4)
    assert (len(data.train), len(data.validation), len(data.test)) == (2, 1, 1)


def test_rows_without_a_word_are_passed_over(pets):
    assert len(named(pets(PETS + ",\n\n , \n"))["train"]) == 3


# --- files ---------------------------------------------------------------------------------------------------------


def test_names_without_ending_are_found_in_any_folder_below_the_table(tmp_path):
    paint(tmp_path, "part_1/ISIC_1.jpg", "part_2/deep/ISIC_2.PNG", "part_2/other.png")
    (tmp_path / "truth.csv").write_text("image,label\nISIC_1,a\nisic_2,b\n")
    found = [name for name, _ in named(tmp_path / "truth.csv")["train"]]
    assert found == ["part_1/ISIC_1.jpg", "part_2/deep/ISIC_2.PNG"]


def test_paths_are_taken_as_written_also_windows_ones_and_those_from_the_root(tmp_path):
    paint(tmp_path, "a/1.png", "b/1.png", "c/1.png")
    (tmp_path / "labels.csv").write_text(f"path,label\na\\1.png,x\n./b/1.png,y\n{tmp_path}/c/1.png,y\n")
    assert [name for name, _ in named(tmp_path / "labels.csv")["train"]] == ["a/1.png", "b/1.png", "c/1.png"]


def test_of_images_of_one_name_the_one_in_the_folder_of_its_split_is_meant(tmp_path):
    paint(tmp_path, "train/1.png", "test/1.png", "train/2.png")
    (tmp_path / "trainLabels.csv").write_text("id,label\n1,frog\n2,ship\n")
    assert [name for name, _ in named(tmp_path / "trainLabels.csv")["train"]] == ["train/1.png", "train/2.png"]
    paint(tmp_path, "training/1.png")
    with pytest.raises(
        UserError, match=r"names '1', and there are several, \S+1.png and \S+1.png; write the path, from"
    ):
        list_table(tmp_path / "trainLabels.csv")


def test_letters_with_accents_are_the_same_in_one_code_or_two(tmp_path):
    paint(tmp_path, "x/cafe\u0301.png", "x/b.png")
    (tmp_path / "labels.csv").write_text("image,label\ncaf\u00e9,a\nb,b\n")
    assert len(named(tmp_path / "labels.csv")["train"]) == 2


def test_a_missing_or_damaged_image_is_named_or_left_out_and_listed(pets):
    path = pets(PETS + "away.png,dog\n")
    with pytest.raises(UserError, match=r"cannot read image .*away\.png: No such file .* or pass --skip-broken"):
        load_dataset(path, image_size=4)
    data = load_dataset(path, image_size=4, validation=0, skip_broken=True)
    assert len(data.train) == 3 and data.facts["broken"] == ["away.png"]
    assert data.files["train"] == ["a.png", "b.png", "c.png"]


def test_a_pack_is_made_again_when_the_table_says_something_else_or_a_picture_changes(pets):
    first = pictures_signature(list_table(pets(PETS)), 4)
    assert pictures_signature(list_table(pets(PETS)), 4) == first
    assert pictures_signature(list_table(pets(PETS.replace("c.png,cat", "c.png,dog"))), 4) != first
    assert pictures_signature(list_table(pets("image,label\nb.png,dog\na.png,cat\nc.png,cat\n")), 4) != first
    assert pictures_signature(list_table(pets(PETS)), 8) != first
    grouped = [pictures_signature(list_table(pets(PETS.replace("l\n", "l,group\n").replace("t\n", f"t,{one}\n"))), 4)
               for one in "12"]  # fmt: skip
    assert len({first, *grouped}) == 3
    paint(pets(PETS).parent, "z.png", "b.png")
    assert pictures_signature(list_table(pets(PETS)), 4) != first


# --- columns that are named ----------------------------------------------------------------------------------------

BIRDS = "nr,photo,genus,place,bird,part\n" + "".join(
    f"{row},{row}.png,{'Parus' if row % 2 else 'Sitta'},{'north' if row % 3 else 'south'},{row // 4 * 2 + row % 2},"
    f"{'test' if row > 15 else 'train'}\n"
    for row in range(20)
)


@pytest.fixture
def birds(tmp_path):
    paint(tmp_path, *(f"{row}.png" for row in range(20)))
    (tmp_path / "birds.csv").write_text(BIRDS)
    return tmp_path / "birds.csv"


def test_columns_that_are_named_are_read_whatever_they_are_called(birds):
    with pytest.raises(UserError, match="does not say which column has the classes"):
        load_dataset(birds, image_size=4)
    data = load_dataset(birds, image_size=4, columns={"label": "genus", "group": "bird", "split": "part"})
    assert data.classes == ("Parus", "Sitta") and (len(data.development), len(data.test)) == (16, 4)
    assert data.group_count == 8 and data.facts["columns"]["image"] == "photo"
    other = load_dataset(birds, image_size=4, columns="label=place, image=nr")
    assert other.classes == ("north", "south") and other.facts["unread_columns"] == ["photo", "genus", "bird", "part"]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ("label=genera", r"birds\.csv: unknown column 'genera'; did you mean 'genus'\?"),
        ("class=genus", "columns: unknown purpose 'class'; known: image, label, split, group"),
        ("genus", "columns has 'genus'; give what a column is for and its title, as in label=species"),
        ("label=genus,group=genus", "columns names 'genus' twice; each column is for one thing"),
        ("label=genus,label=place", "columns names two columns for label, 'genus' and 'place'; give one"),
        ("label=genus,split=place", "its split is '(north|south)'; give train, validation or test"),
    ],
)
def test_what_names_no_column_is_refused(columns, told, birds):
    with pytest.raises(UserError, match=told):
        load_dataset(birds, columns=columns)


def test_titles_may_have_commas_and_equal_signs(pets):
    path = pets('image,"species, latin",a=b\na.png,x,1\nb.png,y,1\nc.png,x,2\n')
    for columns in ({"label": "species, latin", "group": "a=b"}, '"label=species, latin", group=a=b'):
        data = load_dataset(path, image_size=4, columns=columns, validation=0)
        assert data.facts["columns"] == {"image": "image", "label": "species, latin", "group": "a=b"}


def test_columns_are_for_tables_of_pictures(tmp_path):
    paint(tmp_path / "pets", *(f"{kind}/{row}.png" for kind in ("cat", "dog") for row in range(3)))
    with pytest.raises(UserError, match=r"columns is for tables; .*pets is none, leave it out"):
        load_dataset(tmp_path / "pets", columns="label=genus")
    with pytest.raises(UserError, match="columns is for images in files; mnist comes as it was published"):
        load_dataset("mnist", columns="label=genus")


def test_a_run_remembers_the_columns_that_were_named(birds):
    words = ["train", "birds.csv", "--columns", "label=genus,group=bird,split=part", "--epochs", "1", "--widths", "8", "16",
             "16", "--batch-size", "4", "--image-size", "16", "--threads", "1", "--validation", "0.3", "--out",
             "run"]  # fmt: skip
    done = command(*words, cwd=birds.parent)
    assert done.returncode == 0, done.stderr
    run = Run.open(birds.parent / "run")
    assert "--columns label=genus,group=bird,split=part" in reproduce(run)[0]
    found = json.loads(command("evaluate", "run", "--split", "test", "--json", cwd=birds.parent).stdout)
    assert (found["images"], found["groups"]) == (4, 2)
    (birds.parent / "new.csv").write_text(BIRDS.replace("bird,part", "bird,remark"))
    done = command("evaluate", "run", "--on", "new.csv", "--json", cwd=birds.parent)
    found = json.loads(done.stdout)
    assert (found["images"], found["groups"], found["of_groups_trained_on"] > 0) == (20, 10, True)
    text = BIRDS.replace("nr,photo", "photo,file").replace("part", "remark")  # photo is a running number here
    (birds.parent / "other.csv").write_text(text)
    done = command("evaluate", "run", "--on", "other.csv", "--json", cwd=birds.parent)
    assert json.loads(done.stdout)["images"] == 20, done.stderr
    done = command("evaluate", "run", "--data-dir", ".", cwd=birds.parent)
    assert "were named by the table birds.csv, and" in done.stderr and "is none; give that file" in done.stderr


# --- what silently went wrong once ------------------------------------------------------------------------------------


def test_a_running_number_beside_file_names_is_not_taken_for_the_images(tmp_path):
    paint(tmp_path, "x/1.png", "x/2.png", "x/3.png")
    for title, start in (("img_path", ""), ("relative_path", ""), ("whatever", ""), ("photo", "./")):
        rows = [f"{number},{start}x/{4 - number}.png,{label}\n" for number, label in ((1, "a"), (2, "b"), (3, "a"))]
        (tmp_path / "t.csv").write_text(f"id,{title},label\n{''.join(rows)}")
        assert named(tmp_path / "t.csv") == {"train": [("x/3.png", "a"), ("x/2.png", "b"), ("x/1.png", "a")]}
    (tmp_path / "t.csv").write_text("image_id,url,label\n3,http://x/1.png,a\n2,http://x/2.png,b\n1,http://x/3.png,a\n")
    assert [name for name, _ in named(tmp_path / "t.csv")["train"]] == ["x/3.png", "x/2.png", "x/1.png"]


def test_a_missing_image_is_not_replaced_by_one_of_another_split(tmp_path):
    paint(tmp_path, "train/1.png", "train/2.png", "test/1.png", "test/2.png", "test/3.png")
    (tmp_path / "train.csv").write_text("id,label\n1,a\n2,b\n3,a\n")
    with pytest.raises(UserError, match=r"cannot read image .*/3: No such file"):
        load_dataset(tmp_path / "train.csv", image_size=4)
    data = load_dataset(tmp_path / "train.csv", image_size=4, validation=0, skip_broken=True)
    assert (data.files["train"], data.facts["broken"]) == (["train/1.png", "train/2.png"], ["3"])
    told = "images of one name are in several folders; those of train, not of other splits, are taken"
    assert told in data.notes


def test_new_images_of_one_name_are_those_of_the_test_split(tmp_path):
    paint(tmp_path, "train/1.png", "train/2.png", "test/1.png", "test/2.png")
    (tmp_path / "truth.csv").write_text("id,label\n1,a\n2,b\n")
    found = labelled_images(tmp_path / "truth.csv", ("a", "b"))
    assert [str(image.relative_to(tmp_path)) for image in found.images] == ["test/1.png", "test/2.png"]
    assert found.note == "images of one name are in several folders; those of test, not of other splits, are taken"
    paint(tmp_path, "train/3.png")
    (tmp_path / "train.csv").write_text("id,label\n1,a\n2,b\n3,b\n")
    with pytest.raises(
        UserError, match="some are in test and train, and others such as '3' in train only; write the path"
    ):
        labelled_images(tmp_path / "train.csv", ("a", "b"))


def test_groups_are_the_same_in_any_letters_and_nan_is_none(pets):
    listing = list_table(pets("image,label,group\na.png,cat,P7\nb.png,dog,p7 \nc.png,cat,nan\n"))
    assert listing.groups["train"] == ["p7", "p7", ""]


def test_classes_that_look_alike_are_one_or_told(pets):
    data = load_dataset(pets("image,label\na.png,V\u00f6gel\nb.png,Vo\u0308gel\nc.png,v\u00f6gel\n"), image_size=4)
    assert data.classes == ("V\u00f6gel", "v\u00f6gel")
    assert "the classes 'V\u00f6gel' and 'v\u00f6gel' differ in capital letters only; if one is meant" in " ".join(
        data.notes
    )


def test_a_column_called_dataset_that_names_no_split_is_not_read(pets):
    path = pets("image,label,dataset\na.png,cat,vidir\nb.png,dog,rosendahl\nc.png,cat,vidir\n")
    assert list(named(path)) == ["train"] and list_table(path).facts["unread_columns"] == ["dataset"]


def test_rows_that_say_the_same_again_count_once_and_are_told(pets):
    data = load_dataset(pets(PETS + "./a.png,cat\na.png,cat\n"), image_size=4, validation=0)
    assert len(data.train) == 3
    assert "2 rows say again what another one says of the same image" in data.notes


def test_test_images_without_a_class_are_left_out_and_told(pets):
    path = pets("image,label,split\na.png,cat,train\nb.png,dog,train\nc.png,,test\n")
    data = load_dataset(path, image_size=4, validation=0)
    assert data.test is None and "1 test image without a class is left out" in data.notes


def test_classes_in_columns_are_found_beside_others(pets):
    path = pets("image,age,cat,dog\na.png,30,True,False\nb.png,31,False,True\nc.png,32,yes,no\n")
    assert [label for _, label in named(path)["train"]] == ["cat", "dog", "cat"]
    assert list_table(path).facts["unread_columns"] == ["age"]


def test_a_table_reached_by_a_link_is_one_beside_the_link(tmp_path):
    paint(tmp_path, "real/a.png", "real/b.png", "here/a.png", "here/b.png")
    (tmp_path / "real" / "labels.csv").write_text("image,label\na.png,x\nb.png,y\n")
    (tmp_path / "here" / "labels.csv").symlink_to(tmp_path / "real" / "labels.csv")
    data = load_dataset(tmp_path / "here" / "labels.csv", image_size=4, validation=0)
    assert data.folder == tmp_path / "here" and data.development.images[:, 0, 0, 0].tolist() == [30, 40]


def test_what_stands_between_columns_is_what_there_is_most_of(pets):
    assert len(named(pets("image;label;size, mm\na.png;cat;1\nb.png;dog;2\n"))["train"]) == 2
    assert len(named(pets("sep=;\nimage;label\na.png;cat\nb.png;dog\n"))["train"]) == 2


def test_a_list_of_images_to_leave_out_may_use_the_names_of_the_table(tmp_path):
    paint(tmp_path, "train/1.png", "train/2.png", "train/3.png", "train/4.png")
    (tmp_path / "train.csv").write_text("id,label\n1,a\n2,b\n3,a\n4,b\n")
    (tmp_path / "out.csv").write_text("id,label\n3,a\n")
    cut = load_dataset(tmp_path / "train.csv", image_size=4).with_validation(0, seed=0, leave_out=tmp_path / "out.csv")
    assert cut.left_out == ("train/3.png",) and len(cut.train) == 3


def test_one_odd_cell_does_not_make_a_column_of_files_another(tmp_path):
    paint(tmp_path, "x/1.png", "x/2.png")
    (tmp_path / "t.csv").write_text("image,path,label\n2,x/1.png,a\n1,x/2.png,b\n9,x/9.tif,a\n")
    assert [name for name, _ in named(tmp_path / "t.csv")["train"]] == ["x/1.png", "x/2.png", "x/9.tif"]


def test_the_column_that_tells_splits_is_taken_whatever_another_is_called(pets):
    path = pets("image,label,dataset,usage\na.png,cat,vidir,train\nb.png,dog,rosendahl,train\nc.png,cat,vidir,test\n")
    assert {split: len(rows) for split, rows in named(path).items()} == {"train": 2, "test": 1}


def test_an_image_is_of_the_split_that_its_row_says(tmp_path):
    paint(tmp_path, "train/1.png", "test/1.png", "train/2.png", "test/2.png", "train/3.png")
    (tmp_path / "t.csv").write_text("id,label,split\n1,a,train\n2,b,test\n3,b,train\n1,a,train\n")
    found = {split: [name for name, _ in rows] for split, rows in named(tmp_path / "t.csv").items()}
    assert found == {"train": ["train/1.png", "train/3.png"], "test": ["test/2.png"]}


@pytest.mark.parametrize("second", ["cat,train,2", "cat,test,1", "dog,train,1"])
def test_rows_that_put_one_image_elsewhere_are_refused(pets, second):
    path = pets(f"image,label,split,group\na.png,cat,train,1\nb.png,dog,train,3\na.png,{second}\n")
    with pytest.raises(UserError, match=r"two rows for 'a.png' that say something else: cat, train, 1 and"):
        list_table(path)


def test_absolute_names_are_those_of_the_system_where_the_folder_is_a_link(tmp_path):
    paint(tmp_path, "real/a.png", "real/b.png", "other/deep/a.png")
    (tmp_path / "other" / "deep" / "link").symlink_to(tmp_path / "real")
    text = f"image,label\n{tmp_path}/real/a.png,x\n{tmp_path}/other/deep/a.png,y\n"
    (tmp_path / "real" / "t.csv").write_text(text)
    data = load_dataset(tmp_path / "other" / "deep" / "link" / "t.csv", image_size=4, validation=0)
    assert data.development.images[:, 0, 0, 0].tolist() == [10, 30]


def test_what_is_no_regular_file_is_broken_and_not_waited_for(pets):
    path = pets(PETS + "pipe.png,cat\n")
    os.mkfifo(path.parent / "pipe.png")
    with pytest.raises(UserError, match=r"cannot read image .*pipe\.png"):
        load_dataset(path, image_size=4)
    with pytest.raises(UserError, match="it is no regular file; replace or remove it"):
        decode_image(path.parent / "pipe.png", channels=3, size=(4, 4))


def test_images_whose_class_is_not_told_cannot_be_measured_on(pets):
    path = pets("image,label,split\na.png,cat,train\nb.png,dog,train\nc.png,,test\n")
    with pytest.raises(
        UserError, match="none of its test images has a class, so nothing can be measured on them; give"
    ):
        labelled_images(path, ("cat", "dog"))
    paint(path.parent, "d.png")
    path.write_text(path.read_text() + "d.png,cat,test\n")
    assert labelled_images(path, ("cat", "dog")).note.endswith("1 test image without a class left out")


def test_a_class_that_is_held_out_as_a_whole_is_told(tmp_path):
    path = patients(tmp_path, count=6)
    rows = path.read_text().splitlines()
    path.write_text(
        "\n".join([rows[0], *(row.replace("ill", "rare") if row.startswith("3-") else row for row in rows[1:])])
    )
    told = [
        command("train", "labels.csv", "--folds", "3", "--fold", str(fold), "--epochs", "0.1", "--batch-size", "4", "--widths",
                "8", "16", "16", "--image-size", "16", "--no-report", "--threads", "1", cwd=tmp_path).stderr
        for fold in range(3)
    ]  # fmt: skip
    lost = ["of 1 class no image is left to train on, all are held out: rare; another --seed" in text for text in told]
    assert sorted(lost) == [False, False, True]


def test_labels_of_any_length_are_sorted_and_names_in_common_are_found_fast(tmp_path):
    paint(tmp_path, "a.png", "b.png")
    (tmp_path / "t.csv").write_text(f"image,label\na.png,{'9' * 5000}\nb.png,10\n")
    assert list_table(tmp_path / "t.csv").classes == ["10", "9" * 5000]
    files = [f"patient{number}/image.png" for number in range(20_000)]
    known = by_ends(files)
    assert known["patient7/image"] == ["patient7/image.png"] and len(known["image.png"]) == 20_000


def test_a_folder_called_like_a_table_is_a_folder(tmp_path):
    paint(tmp_path, "birds.csv/owl/1.png", "birds.csv/jay/1.png")
    assert load_dataset(tmp_path / "birds.csv", image_size=4, validation=0).classes == ("jay", "owl")


def test_a_column_that_may_say_what_belongs_together_is_told(pets):
    data = load_dataset(
        pets("image,label,part_id\na.png,cat,1\nb.png,dog,1\nc.png,cat,2\n"), image_size=4, validation=0
    )
    assert (
        "words of part_id come again; if images that share one belong together, say so with --columns group=part_id"
        in data.notes
    )
    data = load_dataset(
        pets("image,label,Animal\na.png,cat,Tom\nb.png,dog,Rex\nc.png,cat,Tom\n"), image_size=4, validation=0
    )
    assert (
        "words of Animal come again; if images that share one belong together, say so with --columns group=Animal"
        in data.notes
    )
    data = load_dataset(
        pets("image,label,part_id\na.png,cat,1\nb.png,dog,2\nc.png,cat,3\n"), image_size=4, validation=0
    )
    assert not any("come again" in note for note in data.notes)
    data = load_dataset(
        pets("class id,labels,image\n0,cat,a.png\n1,dog,b.png\n0,cat,c.png\n"), image_size=4, validation=0
    )
    assert not any("come again" in note for note in data.notes)


def test_a_list_may_have_the_title_and_the_backslashes_of_the_table(tmp_path):
    paint(tmp_path, "x/1.PNG", "x/2.PNG", "x/3.PNG", "x/4.PNG")
    rows = [f"x\\{number}.PNG,{'ab'[number % 2]}\n" for number in (1, 2, 3, 4)]
    (tmp_path / "t.csv").write_text("photo,label\n" + "".join(rows))
    (tmp_path / "out.csv").write_text("photo\nx\\3.PNG\n")
    (tmp_path / "out.txt").write_text("x\\3.PNG\n")
    for name in ("out.csv", "out.txt"):
        cut = load_dataset(tmp_path / "t.csv", image_size=4).with_validation(0, seed=0, leave_out=tmp_path / name)
        assert cut.left_out == ("x/3.PNG",)


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "names no image; name the columns in the first line"),
        ("image,label\n", "names no image; name the columns in the first line"),
        ("a.png,cat\nb.png,dog\n", "does not name its columns, its first line has 'a.png', 'cat'; name the columns in"),
        ("image,colour,size\na.png,red,3\n", r"does not say which column has the classes; name it, as in --columns"),
        ("image,label,label\na.png,x,y\n", "has two columns 'label'; rename one"),
        ("image,label\n,cat\n", "has a row without an image: ', cat'; add it or delete the row"),
        ("image,label\na.png, \n", "labels.csv, 'a.png': it has no class; add it or delete the row"),
        ("image,label\na.png,cat,dog\n", "the row of 'a.png' has more cells than there are columns; quote commas"),
        ("image,cat,dog\na.png,1,1\n", "'a.png': it has 2 classes; each image needs just one"),
        ("image,cat,dog\na.png,0,0\n", "'a.png': it has 0 classes; each image needs just one"),
        ("image,label,split\na.png,cat,7\nb.png,dog,train\n", "'a.png': its split is '7'; give train, validation or test"),
        ("image,label,split\na.png,cat,test\n", "has no training image; write train into the column 'split' of some"),
        ("image,label\na.png,cat\nb.png,cat\n", "has 1 class of training images, 'cat'; a classifier needs 2 to"),
        ("image,label\na.png,1\nb.png,2\nc.png,3\n", "its 3 training labels, in column 'label', are all different; give"),
        ("image,label,split\na.png,cat,train\nb.png,dog,train\nc.png,dag,test\n",
         "has a test image of a class that no training image has, in column 'label': unknown class 'dag'; did you mean 'dog'?"),
        ("image,label\na.png,cat\nb.png,dog\n./a.png,dog\n", "has two rows for 'a.png' that say something else: cat and dog"),
        ("image,label\nx/p.png,cat\nx/q.png,dog\n", "images such as 'x/p.png', and none of them is at or below .*; put"),
    ],
)  # fmt: skip
def test_tables_that_do_not_tell_are_refused_in_one_line(pets, text, told):
    with pytest.raises(UserError, match=told) as error:
        list_table(pets(text))
    assert "\n" not in str(error.value) and "labels.csv" in str(error.value)


@pytest.mark.parametrize(
    ("named", "meant"), [("x/a.jpg", "x/a.png"), ("other/b.png", "x/b.png"), ("C:\\\\pics\\\\a.png", "x/a.png")]
)
def test_where_all_are_nowhere_one_that_may_be_meant_is_named(tmp_path, named, meant):
    paint(tmp_path, "x/a.png", "x/b.png")
    (tmp_path / "labels.csv").write_text(f"image,label\n{named},cat\ny/q.png,dog\n")
    with pytest.raises(UserError, match=f"none of them is at or below .*; is '{meant}' meant\\? names are paths from"):
        list_table(tmp_path / "labels.csv")


def test_one_group_of_all_cannot_be_held_out(pets):
    path = pets("image,label,group\na.png,cat,1\nb.png,dog,1\nc.png,cat,1\n")
    with pytest.raises(
        UserError, match="all 3 training images are equal or of one group, so none can be held out; give other"
    ):
        load_dataset(path, image_size=4)
    assert len(load_dataset(path, image_size=4, validation=0).train) == 3


def test_files_that_are_no_tables_and_folders_that_hold_one_are_told_apart(pets, tmp_path):
    path = pets(PETS)
    with pytest.raises(
        UserError, match=r"has no class folder, and a table, labels\.csv; if it says .* give .*labels\.csv"
    ):
        load_dataset(path.parent)
    pets(PETS, "labels.xlsx")
    with pytest.raises(UserError, match=r"labels\.xlsx is a file that is not read; give .* a table saved as \.csv"):
        load_dataset(tmp_path / "labels.xlsx")


def test_a_table_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"there is no file .*absent\.csv; give a folder .* a \.csv file that names images"
    ):
        load_dataset(tmp_path / "absent.csv")
    (tmp_path / "bytes.csv").write_bytes(b"image,label\n\xff\xfe,cat\n")
    with pytest.raises(UserError, match="it is no text in UTF-8"):
        load_dataset(tmp_path / "bytes.csv")


# --- through the commands --------------------------------------------------------------------------------------------


def test_new_labelled_images_may_come_by_a_table(pets):
    path = pets("image,label,split\na.png,dog,train\nb.png,eel,test\nc.png,cat,test\n")
    found = labelled_images(path, ("cat", "dog", "eel"))
    assert [image.name for image in found.images] == ["b.png", "c.png"] and found.labels.tolist() == [2, 0]
    assert found.note == f"of {path} the test images are taken"
    with pytest.raises(UserError, match="unknown class 'eel'"):
        labelled_images(path, ("cat", "dog"))
    assert labelled_images(pets(PETS), ("cat", "dog")).labels.tolist() == [0, 1, 0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder with a table of 12 patients and a run on it, both made by commands."""
    folder = tmp_path_factory.mktemp("by-table")
    patients(folder)
    done = command(
        "train", "labels.csv", "--out", "run", "--epochs", "2", "--widths", "8", "16", "16", "--batch-size", "8",
        "--no-report", "--image-size", "16", "--threads", "1", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_on_a_table_is_judged_moved_and_left_out_of_like_one_on_a_folder(trained):
    told = json.loads((trained / "run" / "data.json").read_text())
    assert (told["columns"]["group"], told["location"]) == ("patient_id", str(trained / "labels.csv"))
    assert command("evaluate", "run", cwd=trained).returncode == 0
    described = json.loads(command("data", "labels.csv", "--json", cwd=trained).stdout)
    assert (described["groups"], described["images"]["train"]) == (12, 48)
    assert "patient_id (group)" in command("data", "labels.csv", cwd=trained).stdout
    (trained / "out.txt").write_text("1-2.png\n./2-0.png\n")
    done = command("preview", "labels.csv", "--image-size", "16", "--leave-out", "out.txt", cwd=trained)
    assert done.returncode == 0, done.stderr
    moved = trained.parent / "moved"
    trained.rename(moved)
    try:
        gone = command("evaluate", "run", cwd=moved)
        assert gone.returncode == 2 and "which is gone; say where they are now with --data-dir" in gone.stderr
        assert command("evaluate", "run", "--data-dir", "labels.csv", cwd=moved).returncode == 0
    finally:
        moved.rename(trained)


def test_a_run_whose_table_has_changed_is_not_measured_on_other_images(trained):
    table = trained / "labels.csv"
    before = table.read_text()
    table.write_text(before.replace("0-0.png,well", "0-0.png,ill"))
    try:
        done = command("evaluate", "run", cwd=trained)
        assert done.returncode == 2 and "has changed since the run" in done.stderr
    finally:
        table.write_text(before)


def test_pictures_that_a_table_names_are_classified_in_its_order(trained):
    (trained / "test").mkdir()
    (trained / "asked.csv").write_text("id,label\n7-1,?\n2-0,?\n7-1,?\n")
    (trained / "test" / "2-0.png").write_bytes((trained / "1-0.png").read_bytes())
    try:
        done = command("predict", "run", "asked.csv", "3-3.png", "--format", "csv", "--explain", "why", cwd=trained)
        assert done.returncode == 0, done.stderr
        files = [line.partition(",")[0] for line in done.stdout.splitlines()]
        assert files == ["file", "7-1", "2-0", "7-1", "3-3.png"]
        assert len(list((trained / "why").iterdir())) == 4
    finally:
        (trained / "test" / "2-0.png").unlink()


def test_of_pictures_of_one_name_to_be_classified_the_test_image_is_meant(tmp_path):
    paint(tmp_path, "train/1.png", "test/1.png")
    (tmp_path / "sample.csv").write_text("id,label\n1,frog\n")
    told = "images of one name are in several folders; those of test, not of other splits, are taken"
    assert read_images(tmp_path / "sample.csv") == (["1"], [tmp_path / "test" / "1.png"], told)
