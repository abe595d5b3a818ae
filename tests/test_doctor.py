"""The doctor: planted duplicates found, none invented, suspect labels found, and what folders and machines tell."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import CPU, ONE_THREAD, pictures, thumbnet
from thumbnet.cli.main import run as command_line
from thumbnet.data.datasets import assemble, load_dataset
from thumbnet.data.embedded import read_fashion_mini
from thumbnet.data.pack import Pack
from thumbnet.doctor import check_labels, examine_computer, examine_dataset
from thumbnet.doctor.computer import guarded, processor
from thumbnet.doctor.dataset import NAMED, findings, label_finding, round_off
from thumbnet.doctor.duplicates import near_duplicates
from thumbnet.recipes import recipe

PLANTED = 60


@pytest.fixture(autouse=True)
def one_thread(two_threads):
    """Many small operations: beside other work two threads wait for each other at every one. `two_threads` undoes it."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def images():
    return read_fashion_mini().arrays["train_images"][:1_500]


def reencoded(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image[0]).save(buffer, "JPEG", quality=60)
    return np.array(Image.open(buffer))[None]


CHANGES = {
    "mirrored": lambda image: image[:, :, ::-1],
    "encoded again": reencoded,
    "brighter": lambda image: np.clip(image * 1.15 + 10.0, 0, 255).astype(np.uint8),
    "darker": lambda image: (image * 0.7).astype(np.uint8),
}


def test_images_of_which_none_resembles_another_have_no_duplicates():
    noise = np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
    told = []
    assert near_duplicates({"train": noise}, {"train": np.zeros(20, np.int64)}, lambda *words: told.append(words)) == []
    assert told[0][1] == 0 and told[-1][1] == told[-1][2]


@pytest.mark.parametrize("change", CHANGES)
def test_planted_near_duplicates_are_found(change, images):
    copies = np.stack([CHANGES[change](image) for image in images[:PLANTED]])
    labels = {"train": np.zeros(len(images), np.int64), "test": np.zeros(PLANTED, np.int64)}
    told = []
    pairs = near_duplicates({"train": images, "test": copies}, labels, lambda *progress: told.append(progress))
    assert {what for what, _, _ in told} == {"looking for duplicates"}
    parts = [done / total for _, done, total in told]
    assert parts == sorted(parts) and (parts[0], parts[-1]) == (0, 1) and len(parts) > 3
    found = {pair.second.row for pair in pairs if pair.across and pair.first.row == pair.second.row}
    assert len(found) >= 0.95 * PLANTED
    if change == "mirrored":
        assert all(pair.mirrored for pair in pairs if pair.across and pair.first.row == pair.second.row)


def test_garments_that_only_look_alike_are_not_duplicates(images):
    pairs = near_duplicates({"train": images}, {"train": np.zeros(len(images), np.int64)})
    assert len(pairs) <= 5


@pytest.mark.parametrize("copies", [2, 4, 8, 20])
def test_near_copies_are_found_however_many_there_are(copies, images):
    random = np.random.default_rng(1)
    noisy = np.stack([np.clip(images[7] + random.normal(0, 8, images[7].shape), 0, 255) for _ in range(copies)])
    labels = {"train": np.zeros(300, np.int64), "test": np.zeros(copies, np.int64)}
    pairs = near_duplicates({"train": images[:300], "test": noisy.astype(np.uint8)}, labels)
    assert {pair.second.row for pair in pairs if pair.across and pair.first.row == 7} == set(range(copies))


def test_equal_images_hide_no_near_copy_and_each_of_them_leaks(images):
    train = np.concatenate([images[:300], np.repeat(images[:1], 6, axis=0)])
    test = np.concatenate([np.repeat((images[:1] * 0.7).astype(np.uint8), 2, axis=0), images[400:500]])
    arrays = {"train_images": train, "train_labels": np.zeros(306, np.int64)}
    arrays |= {"test_images": test, "test_labels": np.zeros(102, np.int64)}
    data = assemble("planted", Pack(arrays, {"classes": ["a", "b"]}), {"location": "memory"})
    found = examine_dataset(data)
    assert found.leaked_exact == 0 and found.leaked >= 2
    assert any(pair.first.row == 0 and pair.second.row == 0 and pair.across for pair in found.near)


def planted_set(images) -> "object":
    """Training and test images with 7 exact leaks, 2 exact copies in training with another label, and a flat image."""
    train, test = images[:600].copy(), images[600:700].copy()
    test[:7] = train[:7]
    train[100:102] = train[200:202]
    train[300] = 77
    labels = np.arange(600) % 10
    labels[100:102] = (labels[200:202] + 1) % 10
    arrays = {"train_images": train, "train_labels": labels, "test_images": test, "test_labels": np.arange(100) % 10}
    return assemble("planted", Pack(arrays, {"classes": list("abcdefghij")}), {"location": "memory"})


def test_exact_duplicates_leaks_conflicts_and_flat_images_are_counted(images):
    found = examine_dataset(planted_set(images))
    assert (found.leaked_exact, len(found.conflicting)) == (7, 2)
    assert found.leaked >= 7
    assert len(found.exact) == 9
    assert [(place.split, place.row) for place in found.constant] == [("train", 300)]
    said = dict((sentence, grave) for grave, sentence in findings(found))
    assert any("7 of the 100 test images (7.00%) are training images too" in text for text in said)
    assert any("2 groups of equal images have different labels" in text for text in said)
    assert json.loads(json.dumps(found.to_dict()))["leaked_exact"] == 7


def test_leaks_that_are_nearly_so_are_not_told_as_none(images):
    train, test = images[:600], images[600:700].copy()
    test[:3] = (train[:3] * 0.7).astype(np.uint8)
    arrays = {"train_images": train, "train_labels": np.arange(600) % 10, "test_images": test}
    arrays["test_labels"] = np.arange(100) % 10
    data = assemble("planted", Pack(arrays, {"classes": list("abcdefghij")}), {"location": "memory"})
    found = examine_dataset(data)
    [(grave, told), *_] = findings(found)
    assert found.leaked_exact == 0 and 3 <= found.leaked <= 5  # the planted ones, and what garments are alike anyway
    near = f"{found.leaked} ({found.leaked}.00%)"
    assert grave == "fault"
    assert told.startswith(f"none of the 100 test images is a training image too, but {near} look like one")


def test_validation_images_that_are_training_images_too_are_a_fault(images):
    train, validation, test = images[:600], images[600:650].copy(), images[700:750].copy()
    validation[:3], validation[3], test[0] = train[:3], (train[50] * 0.7).astype(np.uint8), validation[10]
    arrays = {"train_images": train, "train_labels": np.arange(600) % 10}
    arrays |= {"validation_images": validation, "validation_labels": np.arange(50) % 10}
    arrays |= {"test_images": test, "test_labels": np.arange(50) % 10}
    found = examine_dataset(assemble("planted", Pack(arrays, {"classes": list("abcdefghij")}), {"location": "memory"}))
    assert (found.leaked_exact, found.leaked_validation_exact) == (1, 3)
    assert 4 <= found.leaked_validation <= 6 and 1 <= found.leaked <= 3  # more: what garments are alike anyway
    said = {sentence: grave for grave, sentence in findings(found)}
    [told] = [sentence for sentence in said if "validation images (" in sentence]
    assert told.startswith("3 of the 50 validation images (6.00%) are training images too, and ")
    assert told.endswith("accuracy on them says nothing of new images") and said[told] == "fault"
    assert json.loads(json.dumps(found.to_dict()))["leaked_validation_exact"] == 3


def test_validation_images_of_their_own_are_no_fault(images):
    arrays = {"train_images": images[:60], "train_labels": np.arange(60) % 2}
    arrays |= {"validation_images": images[60:80], "validation_labels": np.arange(20) % 2}
    found = examine_dataset(assemble("apart", Pack(arrays, {"classes": ["a", "b"]}), {"location": "memory"}))
    told = "none of the 20 validation images was found among the training images, equal or nearly"
    assert ("ok", told) in findings(found)


def test_images_with_wrong_labels_are_the_first_suspects(tmp_path):
    pack = read_fashion_mini()
    labels = pack.arrays["train_labels"][:2_000].copy()
    random = np.random.default_rng(0)
    wrong = random.choice(2_000, 60, replace=False)
    labels[wrong] = (labels[wrong] + random.integers(1, 10, 60)) % 10
    arrays = {"train_images": pack.arrays["train_images"][:2_000], "train_labels": labels}
    data = assemble("mislabelled", Pack(arrays, pack.description), {"location": "memory"})
    made = recipe("general", widths=(16, 32, 64), epochs=6, batch_size=50)
    checked = check_labels(data, made, tmp_path, folds=2, machine=CPU, plots=False)
    assert checked.conclusive and checked.images == 2_000 and 0.6 < checked.accuracy < 0.95
    found = checked.suspects
    first = {suspect.place.row for suspect in found[:60]}
    assert len(first & set(wrong.tolist())) >= 30  # chance would be 2
    assert all(suspect.label != suspect.suggested for suspect in found)
    grave, told = label_finding(checked, {})
    assert grave == "note" and told.startswith(f"{len(found):,} of 2,000 training labels (")
    assert 40 <= checked.expected_wrong <= 160 and 0.5 < found[-1].wrong_probability <= found[0].wrong_probability
    assert f"some {round_off(checked.expected_wrong)} wrong in all" in told
    shown = ", ".join(f"train {row.place.row}" for row in found[:NAMED])
    assert told.endswith(f"of the labels: {shown}, and {len(found) - NAMED} more")


def test_a_folder_tells_its_sizes_modes_and_broken_files(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(25):
            Image.fromarray(rng.integers(0, 255, (40, 30 + i % 2, 3), np.uint8)).save(
                tmp_path / "pets" / name / f"{i}.png"
            )
    Image.new("L", (64, 64), 5).save(tmp_path / "pets" / "cat" / "flat.png")
    (tmp_path / "pets" / "dog" / "torn.png").write_bytes(b"\x89PNG torn")
    (tmp_path / "pets" / "dog" / "notes.txt").write_text("hello")
    found = examine_dataset(load_dataset(tmp_path / "pets", skip_broken=True))
    assert sum(found.sizes.values()) == 51 and found.sizes["64 x 64"] == 1
    assert found.modes == {"RGB": 50, "L": 1}
    said = " ".join(sentence for _, sentence in findings(found))
    for words in (
        "1 image of one colour throughout: cat/flat.png",
        "1 file cannot be read and is left out: dog/torn.png; train stops at that without --skip-broken",
        "dog/notes.txt",
        "3 sizes of image",
        "50 RGB, 1 grey",
    ):
        assert words in said, said


def test_small_and_uneven_classes_are_told():
    images = np.random.default_rng(0).integers(0, 255, (230, 3, 8, 8), np.uint8)
    arrays = {"train_images": images, "train_labels": np.array([0] * 220 + [1] * 10)}
    found = examine_dataset(assemble("x", Pack(arrays, {"classes": ["many", "few"]}), {"location": "memory"}))
    said = " ".join(sentence for _, sentence in findings(found))
    assert "1 class has fewer than 20 training images: few" in said
    assert "many has 220 training images, few 10" in said


def test_two_images_are_no_reason_to_fail():
    arrays = {"train_images": np.zeros((2, 3, 8, 8), np.uint8), "train_labels": np.array([0, 1])}
    found = examine_dataset(assemble("x", Pack(arrays, {"classes": ["a", "b"]}), {"location": "memory"}))
    assert len(found.conflicting) == 1 and len(found.constant) == 2
    told = dict.fromkeys(sentence for _, sentence in findings(found))
    assert "1 group of equal images has different labels: train 0 = train 1" in told


# ---------------------------------------------------------------- the machine


def test_this_machine_and_installation_are_sound():
    found = examine_computer(CPU)
    assert any("1 thread" in sentence and "core" in sentence for _, sentence in found)
    assert any("a training step on cpu, 1 thread, fp32 gives" in sentence for _, sentence in found)
    assert [sentence for grave, sentence in found if grave == "fault"] == []
    assert any("finite weights" in sentence for _, sentence in found)


@pytest.mark.parametrize("load", [0.0, 99.0])
def test_threads_are_asked_for_where_cores_are_idle_and_fewer_where_they_are_not(monkeypatch, load):
    monkeypatch.setattr("os.getloadavg", lambda: (load, load, load))
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    told = " ".join(sentence for _, sentence in processor(CPU))
    assert ("OMP_NUM_THREADS=1 leaves 63 cores idle" in told) == (load == 0)
    assert ("other programs keep this machine busy" in told) == (load > 0)


def test_a_check_that_breaks_is_a_fault_of_its_own():
    def broken_check(machine):
        raise OSError("no such device")
        yield

    assert guarded(broken_check, CPU) == [("fault", "broken check: OSError: no such device")]


def test_a_data_folder_that_is_not_there_is_a_fault_and_exit_1(tmp_path):
    result = thumbnet("doctor", cwd=tmp_path, THUMBNET_DATA=str(tmp_path / "gone"))
    assert result.returncode == 1
    assert "which is no folder" in result.stdout
    assert result.stderr.splitlines() == ["thumbnet: 1 fault found on this machine"]


def test_the_command_writes_a_gallery(tmp_path):
    result = thumbnet("doctor", "fashion-mini", "--json", cwd=tmp_path, **ONE_THREAD)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["images"] == {"train": 6000, "test": 1000}
    page = (tmp_path / "doctor-fashion-mini.html").read_text()
    assert page.count("<img") > 4 and "Images that look alike" in page


@pytest.mark.parametrize(
    "words",
    [
        ["doctor", "nowhere/"],
        ["doctor", "cifar11"],
        ["doctor", "--labels"],
        ["doctor", "fashion-mini", "--labels", "--folds", "1"],
        ["doctor", "fashion-mini", "--output", "x.txt"],
    ],
)
def test_bad_input_is_one_line_and_exit_2(words, tmp_path):
    result = thumbnet(*words, cwd=tmp_path)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)


def test_a_picture_in_other_colours_is_another_one():
    noise = np.random.default_rng(0).integers(0, 256, (200, 3, 32, 32), dtype=np.uint8)
    soft = np.stack([np.kron(image[:, ::4, ::4], np.ones((1, 4, 4))) for image in noise]).astype(np.uint8)
    red, blue = soft[0].copy(), soft[0].copy()
    red[2] //= 4
    blue[0] //= 4
    labels = {"train": np.zeros(200, np.int64), "test": np.zeros(2, np.int64)}
    darker = (red * 0.8).astype(np.uint8)
    pairs = near_duplicates({"train": np.concatenate([red[None], soft[1:]]), "test": np.stack([blue, darker])}, labels)
    assert {(pair.first.row, pair.second.row) for pair in pairs if pair.across} == {(0, 1)}


def test_networks_that_learnt_nothing_doubt_no_label(tmp_path):
    pack = read_fashion_mini()
    labels = np.random.default_rng(0).integers(0, 10, 300)
    arrays = {"train_images": pack.arrays["train_images"][:300], "train_labels": labels}
    data = assemble("random", Pack(arrays, pack.description), {"location": "memory"})
    made = recipe("general", widths=(8, 16, 16), epochs=2, batch_size=30)
    checked = check_labels(data, made, tmp_path, folds=2, machine=CPU, plots=False)
    assert not checked.conclusive and checked.suspects == () and checked.accuracy < 0.3
    found = replace(examine_dataset(data), labels=checked)
    [(grave, said)] = [row for row in findings(found) if "said of labels" in row[1]]
    assert grave == "note" and said.startswith(
        "nothing can be said of labels: networks trained on the other parts agree with"
    )


def test_labels_of_a_set_with_validation_images_of_its_own_are_checked_too(tiny, tmp_path):
    own = replace(tiny, own_validation=tiny.development)
    checked = check_labels(
        own, recipe("general", widths=(8, 16, 16), epochs=1, batch_size=30), tmp_path, folds=2, machine=CPU
    )
    assert checked.images == 240


def test_labels_are_checked_again_after_one_was_corrected_and_with_other_folds(tiny, tmp_path):
    made = recipe("general", widths=(8, 16, 16), epochs=0.5, batch_size=30)
    options = {"machine": CPU, "plots": False}
    first = check_labels(tiny, made, tmp_path, folds=2, **options)
    images, labels = tiny.development.images.numpy(), tiny.development.labels.numpy().copy()
    labels[0] = (labels[0] + 1) % 10
    facts = {"classes": tiny.classes}
    corrected = assemble("tiny", Pack({"train_images": images, "train_labels": labels}, facts), {"location": "memory"})
    check_labels(corrected, made, tmp_path, folds=2, **options)
    check_labels(tiny, made, tmp_path, folds=3, **options)
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.glob("*/fold-*/summary.json"))
    assert len(written) == 2 + 2 + 3 and len({path.parts[0] for path in written}) == 3
    again = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")}
    assert check_labels(tiny, made, tmp_path, folds=2, **options) == first  # as it was: nothing is trained
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")} == again


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--recipe general", "is for data; name a data set or folder, or leave it out to examine this machine"),
        ("--offline", "is for data; name a data set or folder, or leave it out to examine this machine"),
        ("fashion-mini --folds 3", "--folds is for --labels; give that too, or leave it out"),
        ("fashion-mini --resuming --folds 3", "--folds changes nothing with --resuming; leave one of them out"),
        ("--checkpoint-seconds 9", "is for data; name a data set or folder, or leave it out to examine this machine"),
        ("fashion-mini --recipe general", "--recipe is for --labels and --resuming, which train; give one of them"),
        ("fashion-mini --threads 1", "--threads is for --labels and --resuming, which train; give one of them"),
        ("fashion-mini --resuming --labels", "--labels changes nothing with --resuming; leave one"),
        ("fashion-mini --resuming --output a.html", "--output changes nothing with --resuming; leave one"),
        ("fashion-mini --resuming --checkpoint-seconds 9", "--checkpoint-seconds changes nothing with --resuming"),
    ],
)  # fmt: skip
def test_flags_that_would_change_nothing_are_refused(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command_line(["doctor", *words.split()]) == 2
    assert message in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_a_small_folder_with_broken_and_foreign_files_is_examined_with_its_labels(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("thumbnet.recipes.fitting.LEAST_STEPS", 60)  # of 300: enough for these two classes
    pack = read_fashion_mini()
    for label, name in ((0, "shirt"), (1, "trouser")):
        folder = tmp_path / "clothes" / name
        folder.mkdir(parents=True)
        rows = np.flatnonzero(pack.arrays["train_labels"] == label)[:30]
        for row in rows:
            Image.fromarray(pack.arrays["train_images"][row, 0]).save(folder / f"{row}.png")
    Image.fromarray(pack.arrays["train_images"][rows[0], 0, :, ::-1]).save(folder / "copy.png")
    (folder / "torn.png").write_bytes(b"\x89PNG torn")
    (folder / "scan.tiff").write_bytes(b"II*")
    code = command_line(["doctor", "clothes", "--labels", "--folds", "2", "--json", "--threads", "1"])
    output, errors = capsys.readouterr()
    assert code == 0, errors
    assert "30 training images, few for general: epochs 20 (not 11), batch_size 8 (not 100)" in errors
    found = json.loads(output)
    assert (
        found["broken"] == ["trouser/torn.png"] and found["ignored"] == ["trouser/scan.tiff"] and found["faults"] == 1
    )
    assert found["labels"]["images"] == 61 and found["labels"]["accuracy"] > 0.7
    [copied] = [pair for pair in found["near"] if pair["mirrored"] and "copy.png" in pair["second"]["file"]]
    assert copied["first"]["file"] == f"trouser/{rows[0]}.png" and copied["second"]["file"] == "trouser/copy.png"
    assert found["labels"]["conclusive"] is True
    assert "fold 2 of 2: a network trained on" in errors and "epoch" not in errors.split("fold 1 of 2")[1]
    [first] = (tmp_path / "runs" / ".doctor" / "clothes").iterdir()
    assert (first / "fold-1").is_dir() and not (tmp_path / "runs" / "latest").exists()


def test_resuming_is_tried_on_a_folder_of_few_pictures(here, capsys):
    pictures(here / "few", count=24)
    assert command_line(["doctor", "few", "--resuming", "--threads", "1", "--runs", "tried"]) == 0
    output, errors = capsys.readouterr()
    assert "44 training images, few for general" in errors and "resumed, ends with the same bits" in output
    assert command_line(["doctor", "few", "--resuming", "--recipe", "plain", "--runs", "refused"]) == 2
    assert "batch_size 64 is larger than the 44 training images of few" in capsys.readouterr().err
    assert not (here / "refused").exists()
