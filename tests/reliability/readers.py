"""Everything of thumbnet that reads a file somebody else may have written: how to feed it one, and small valid ones."""

import gzip
import hashlib
import io
import json
import pickle
import shutil
import struct
import tarfile
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save

from thumbnet.data.arrays import read_arrays
from thumbnet.data.cifar import read_cifar10
from thumbnet.data.idx import read_idx
from thumbnet.data.images import decode_image
from thumbnet.data.inert_pickle import read_pickle
from thumbnet.data.pack import Pack, read_pack, write_pack
from thumbnet.judging.answers import read_answers, score_answers
from thumbnet.reading import read_json, read_toml
from thumbnet.recipes import recipe
from thumbnet.recipes.recipe_file import as_toml, recipe_table
from thumbnet.runs.checkpoints import check_arrays, load_checkpoint
from thumbnet.runs.predictions import Predictions, load_predictions
from thumbnet.runs.run import Run
from thumbnet.studies.study_file import read_study

OWNER = "0123456789abcdef"
PIXELS = np.arange(4 * 3072, dtype=np.int64).reshape(4, 3072).astype(np.uint8)


def written(content, folder, name):
    path = folder / name
    path.write_bytes(content)
    return path


# ------------------------------------------------------------------------------------- CIFAR's pickles


def pickle_of_cifar(content, folder):
    read_pickle(content, "data_batch_1")


def cifar_folder(content, folder):
    """A whole set whose first batch, or list of names, is the content."""
    home = Path(tempfile.mkdtemp(dir=folder))
    try:
        batch = pickle.dumps({b"data": PIXELS, b"labels": [0, 1, 1, 0]}, 2)
        for name in ("data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
            written(batch, home, name)
        written(content, home, "data_batch_1")
        written(pickle.dumps({b"label_names": [b"a", b"b"]}, 2), home, "batches.meta")
        read_cifar10(home)
    finally:
        shutil.rmtree(home)


def pickles():
    return [pickle.dumps({b"data": PIXELS, b"labels": [0, 1, 1, 0]}, protocol) for protocol in range(6)]


def cifar_archive(content, folder):
    read_cifar10(written(content, folder, "cifar-10-python.tar.gz"))


def cifar_members():
    """Name and content of every file of a small set."""
    batch = pickle.dumps({b"data": PIXELS, b"labels": [0, 1, 1, 0]}, 2)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    members = {name: batch for name in names} | {"batches.meta": pickle.dumps({b"label_names": [b"a", b"b"]}, 2)}
    return {f"cifar-10-batches-py/{name}": content for name, content in members.items()}


def archives():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in cifar_members().items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return [buffer.getvalue()]


# ------------------------------------------------------------------------------------- IDX, images


def idx(content, folder):
    read_idx(written(content, folder, "images-idx3-ubyte"))


def idx_files():
    images = b"\x00\x00\x08\x03" + struct.pack(">3I", 2, 5, 4) + bytes(40)
    return [images, gzip.compress(images), b"\x00\x00\x08\x01" + struct.pack(">I", 3) + b"\x01\x02\x03"]


def npz_set(content, folder):
    read_arrays(written(content, folder, "set.npz"))


def npz_sets():
    """Sets of three images: numbered, and named with a test split."""
    images = np.arange(3 * 5 * 4, dtype=np.uint8).reshape(3, 5, 4)
    named = {"classes": np.array(["a", "b"]), "x_test": images[:1], "y_test": np.array([1])}
    made = []
    for write, more in ((np.savez, {}), (np.savez_compressed, named)):
        buffer = io.BytesIO()
        write(buffer, train_images=images, train_labels=np.array([[0], [1], [0]], np.uint8), **more)
        made.append(buffer.getvalue())
    return made


def image(content, folder):
    decode_image(content, channels=3, size=(32, 32))


def images():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8))
    made = []
    for mode, kind, options in (
        ("RGB", "PNG", {}), ("P", "PNG", {"transparency": 3}), ("RGBA", "PNG", {}), ("I;16", "PNG", {}), ("1", "PNG", {}),
        ("RGB", "JPEG", {"quality": 70}), ("CMYK", "JPEG", {}), ("L", "JPEG", {"progressive": True}),
        ("RGB", "WEBP", {}), ("RGBA", "WEBP", {"lossless": True}), ("P", "GIF", {}), ("RGB", "BMP", {}), ("P", "BMP", {}),
    ):  # fmt: skip
        buffer = io.BytesIO()
        image = picture.convert("L").convert("I;16") if mode == "I;16" else picture.convert(mode)
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(buffer, kind, **options, **({"exif": exif} if kind in ("JPEG", "WEBP") else {}))
        made.append(buffer.getvalue())
    return made


# ------------------------------------------------------------------------------------- states, weights, packs


def arrays(number):
    return {"model.weight": np.full((4, 3), number, np.float32), "totals": np.zeros(4)}


def check(found):
    check_arrays(found, {name: (array.shape, array.dtype.name) for name, array in arrays(0).items()})


POSITION = {"epoch": 1, "step": 0, "epochs": 3.0, "seconds": 1.5, "training_seconds": 1.0}


def checkpoint(content, folder):
    """A run whose only state is the content; somebody has made the manifest fit it."""
    home = Path(tempfile.mkdtemp(dir=folder))
    try:
        written(content, home, "1-0.safetensors")
        told = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        (home / "1-0.json").write_text(json.dumps(told) + "\n")
        load_checkpoint(home, OWNER, check)
    finally:
        shutil.rmtree(home)


@cache  # the library writes metadata in an order of its own each time
def states():
    return [save(arrays(1), {"owner": OWNER, "position": json.dumps(POSITION)})]


def manifest(content, folder):
    """A run whose only state has the content for its manifest."""
    home = Path(tempfile.mkdtemp(dir=folder))
    try:
        (home / "1-0.safetensors").write_bytes(states()[0])
        written(content, home, "1-0.json")
        load_checkpoint(home, OWNER, check)
    finally:
        shutil.rmtree(home)


def manifests_of_states():
    state = states()[0]
    return [(json.dumps({"bytes": len(state), "sha256": hashlib.sha256(state).hexdigest()}, indent=2) + "\n").encode()]


def weights(content, folder):
    """A finished run whose weights are the content."""
    home = run_folder(folder)
    try:
        written(content, home, "model.safetensors")
        Run.open(home).model()
    finally:
        shutil.rmtree(home)


def weight_files():
    from thumbnet.recipes.network import build_model
    from thumbnet.runs.run import arrays_of

    return [save(dict(arrays_of(build_model(RECIPE, channels=1, classes=2).state_dict())))]


def pack(content, folder):
    read_pack(written(content, folder, "x.safetensors"))


def packs():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pack.safetensors"
        arrays = {"train_images": np.zeros((2, 1, 4, 4), np.uint8), "train_labels": np.zeros(2, np.int64)}
        write_pack(path, Pack(arrays, {"classes": ["a", "b"]}))
        return [path.read_bytes()]


def predictions(content, folder):
    load_predictions(written(content, folder, "validation.npz"))


def prediction_files():
    import torch

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npz"
        rows = torch.arange(3)
        Predictions("validation", 1, ("a", "b"), "f" * 16, rows, rows % 2, torch.zeros(3, 2)).save(path)
        return [path.read_bytes()]


def answers_of_others(ending):
    def read(content, folder):
        score_answers(read_answers(written(content, folder, f"said{ending}")))

    return read


def answer_tables():
    """With positions, and with names in quotes."""
    return [
        b"image,class,predicted\n0,cat,cat\n1,dog,cat\n",
        b'class,predicted,file\r\n"a, b",3,x/1.png\r\n3,3,x/2.png\r\n',
    ]


def answer_arrays():
    """With probabilities and names, and with answers alone."""
    labels, made = np.array([0, 1, 0]), []
    named = {"probabilities": np.full((3, 2), 0.5), "classes": np.array(["a", "b"]), "rows": np.arange(3)}
    for arrays in (named, {"predicted": labels}):
        buffer = io.BytesIO()
        np.savez(buffer, labels=labels, **arrays)
        made.append(buffer.getvalue())
    return made


# ------------------------------------------------------------------------------------- TOML and JSON


RECIPE = recipe("plain", epochs=1)
TIMES = {"training_seconds": 1.0, "images_per_second": 10.0}
ROW = {
    "epoch": 1, "learning_rate": 0.1, "train_loss": 1.0, "train_accuracy": 0.5, "train_top5": 1.0, "validation_loss": None,
    "validation_accuracy": 0.5, "validation_top5": None, "l2_penalty": 0.0, **TIMES,
}  # fmt: skip
SUMMARY = {
    "run": "runs/x", "dataset": "x", "recipe": "plain", "model": "small_resnet", "classes": 2, "parameters": 10, "seed": 0,
    "device": "cpu", "precision": "fp32", "epochs": 1, "train_images": 4, "train_accuracy": 0.5, "train_loss": 1.0,
    "validation_images": 0, "validation_accuracy": None, "validation_top5": None, "validation_loss": None,
    "train_seconds": 1.0, "images_per_second": 10.0,
}  # fmt: skip
DATA = {
    "name": "x", "location": "/x", "classes": ["a", "b"], "channels": 1, "image_size": [28, 28], "fingerprint": "f" * 16,
}  # fmt: skip
FILES = {
    "recipe.toml": as_toml(recipe_table(RECIPE), "a recipe"),
    "data.json": json.dumps(DATA),
    "summary.json": json.dumps(SUMMARY),
    "metrics.jsonl": json.dumps(ROW) + "\n" + json.dumps(ROW | {"epoch": 2}) + "\n",
    "environment.json": json.dumps({"device": "cpu", "precision": "fp32", "threads": 1}),
    "calibration.json": json.dumps({"temperature": 1.5}),
    "evaluations.jsonl": json.dumps({"time": "2026-01-01", "split": "test"}) + "\n",
    "robustness.json": json.dumps({"mean": 0.5}),
}


def run_folder(folder):
    home = Path(tempfile.mkdtemp(dir=folder))
    for name, text in FILES.items():
        (home / name).write_text(text)
    return home


def read_all(run):
    return (run.summary, run.metrics, run.evaluations, run.temperature, run.environment, run.robustness, repr(run),
            run.identity, run.resume_command)  # fmt: skip


def file_of_a_run(name):
    """(reader, its valid inputs) of one file of a run folder."""

    def read(content, folder):
        home = run_folder(folder)
        try:
            written(content, home, name)
            read_all(Run.open(home))
        finally:
            shutil.rmtree(home)

    return read, lambda: [FILES[name].encode()]


def study(content, folder):
    made = read_study(written(content, folder, "study.toml"))
    made.plan()


def studies():
    return [
        b'dataset = "fashion-mini"\nrecipe = "general"\nseeds = [1, 2]\nmetric = "loss"\n[grid]\nepochs = [1]\nflip = [true]\n',
        b'name = "x"\nfolds = 3\nfirst_seed = 4\n[fields]\nepochs = 1\n[[variant]]\nname = "a"\ncutmix = 0.5\n[[variant]]\n'
        b'name = "b"\nwidths = [8, 16, 16]\nresolution = [0.5, 1.0]\nnote = "n"\n',
    ]


def plain_json(content, folder):
    read_json(written(content, folder, "x.json"), {"epoch": int, "name": str})


def plain_toml(content, folder):
    read_toml(written(content, folder, "x.toml"), "the config file")


SURFACES = {
    "CIFAR pickle": (pickle_of_cifar, pickles),
    "CIFAR folder": (cifar_folder, pickles),
    "CIFAR archive": (cifar_archive, archives),
    "IDX": (idx, idx_files),
    "npz of a set": (npz_set, npz_sets),
    "image": (image, images),
    "checkpoint": (checkpoint, states),
    "manifest": (manifest, manifests_of_states),
    "weights": (weights, weight_files),
    "pack": (pack, packs),
    "predictions": (predictions, prediction_files),
    "answers as CSV": (answers_of_others(".csv"), answer_tables),
    "answers as npz": (answers_of_others(".npz"), answer_arrays),
    "study TOML": (study, studies),
    "config TOML": (plain_toml, studies),
    **{f"a run's {name}": file_of_a_run(name) for name in FILES},
    "JSON": (
        plain_json,
        lambda: [b'{"epoch": 1, "name": "x"}', json.dumps({"epoch": 2, "name": "x", "more": [1.5, None, {}]}).encode()],
    ),
}
