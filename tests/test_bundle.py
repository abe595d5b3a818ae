"""A network in a folder to hand on: the program beside it says what thumbnet says, and the card what was measured."""

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from conftest import CPU
from thumbnet.cli.main import run as command_line
from thumbnet.data.datasets import assemble
from thumbnet.data.pack import Pack
from thumbnet.errors import UserError
from thumbnet.judging.evaluation import evaluate
from thumbnet.judging.thresholds import Threshold
from thumbnet.recipes import vary
from thumbnet.shipping.bundle.folder import card, export, precision_of
from thumbnet.shipping.loading import load
from thumbnet.training.loop import train

for needed in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(needed, reason="exporting to ONNX needs the extra `export`")


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    from thumbnet.recipes import recipe

    made = recipe("general", widths=(8, 16, 16), epochs=1, batch_size=32)
    return train(made, tiny, tmp_path_factory.mktemp("bundled") / "run", machine=CPU, plots=False)


@pytest.fixture(scope="module")
def folder(run, tiny, tmp_path_factory):
    made = tmp_path_factory.mktemp("bundle") / "shirts"
    export(run, made, data=tiny)
    return made


def pictures(folder):
    """Files of every kind that is not read as it is stored."""
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.fromarray(noise[..., :3]).save(folder / "turned.jpg", exif=exif)
    Image.fromarray(noise).save(folder / "transparent.png")
    Image.fromarray(noise[..., :3]).quantize(16).save(folder / "palette.gif")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    Image.fromarray(noise[:28, :28, 0]).save(folder / "its size.png")
    return sorted(folder.iterdir())


def test_the_program_gives_the_probabilities_of_thumbnet(folder, tmp_path):
    files = pictures(tmp_path)
    spec = importlib.util.spec_from_file_location("classify", folder / "classify.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    expected = load(folder / "model.onnx").predict_proba(files)
    assert len(files) == 5 and expected.std(0).max() > 0.001
    np.testing.assert_allclose(program.classify(files), expected, atol=1e-5)


def test_the_program_runs_by_itself(folder, tmp_path):
    Image.new("L", (40, 30), 200).save(tmp_path / "grey.png")
    code = (
        "import runpy, sys; sys.argv[:] = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__'); "
        "print(any(name.split('.')[0] in ('thumbnet', 'torch') for name in sys.modules))"
    )
    words = [sys.executable, "-c", code, folder / "classify.py", tmp_path / "grey.png"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    name, alone = done.stdout.splitlines()
    [expected] = load(folder / "model.onnx").predict([tmp_path / "grey.png"])
    assert name.startswith(f"{tmp_path / 'grey.png'}  {expected}  ") and alone == "False"
    (tmp_path / "broken.png").write_bytes(b"no picture")
    mixed = [sys.executable, folder / "classify.py", "gone.png", "broken.png", "grey.png"]
    done = subprocess.run(mixed, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout.startswith(f"grey.png  {expected}  ")
    gone, broken = done.stderr.splitlines()
    assert gone.startswith("gone.png cannot be read: ") and broken.startswith("broken.png cannot be read: ")
    shutil.copy(folder / "classify.py", tmp_path)
    alone = subprocess.run([sys.executable, "classify.py", "grey.png"], capture_output=True, text=True, cwd=tmp_path)
    assert alone.returncode == 1 and alone.stderr.startswith(f"{tmp_path / 'model.onnx'} cannot be read: ")
    assert "Traceback" not in alone.stderr
    silent = subprocess.run([sys.executable, folder / "classify.py"], capture_output=True, text=True)
    assert silent.returncode == 1 and "python classify.py photo.png" in silent.stderr
    shutil.copy(tmp_path / "grey.png", tmp_path / "\u732b.png")
    named = [sys.executable, folder / "classify.py", "\u732b.png", "grey.png"]
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(named, capture_output=True, text=True, cwd=tmp_path, env=ascii_only)
    assert done.returncode == 0 and [line.split()[0] for line in done.stdout.splitlines()] == [
        "\\u732b.png",
        "grey.png",
    ]
    asked = subprocess.run([sys.executable, folder / "classify.py", "--help"], capture_output=True, text=True)
    assert asked.returncode == 0 and "python classify.py photo.png" in asked.stdout


def test_the_folder_is_used_by_its_name_without_torch(folder, run, tmp_path):
    Image.new("L", (40, 30), 200).save(tmp_path / "grey.png")
    words = ["predict", str(folder), str(tmp_path / "grey.png")]
    code = f"import sys; from thumbnet.cli.main import run; run({words!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    named, loaded = done.stdout.splitlines()
    assert load(folder).predict([tmp_path / "grey.png"])[0] in named and loaded == "False"
    with pytest.raises(
        UserError, match=r"model.onnx: name that to predict, serve or evaluate --on, and else the run folder"
    ):
        evaluate(str(folder))
    shutil.copytree(folder, tmp_path / "lost")
    (tmp_path / "lost" / "model.onnx").unlink()
    with pytest.raises(UserError, match=r"model.onnx was exported to it and is missing: export again"):
        load(tmp_path / "lost")


def test_a_run_with_an_exported_file_in_it_stays_a_run(tiny, quick, tmp_path):
    run = train(quick, tiny, tmp_path / "run", machine=CPU, plots=False)
    export(run, run.path / "model.onnx", data=tiny)
    assert repr(load(run.path)).startswith("Classifier(10 classes, images of 28 x 28, cpu")


def test_the_card_says_what_was_measured_and_of_which_images(run, tiny, folder):
    text = (folder / "README.md").read_text()
    low, high = run.summary["validation_interval95"]
    assert (
        f"| validation accuracy | {run.summary['validation_accuracy']:.2%} of 24 images in one view, in fp32 (95 % interval"
        in text
    )
    assert f"{low:.2%} to {high:.2%}" in text and "test accuracy" not in text and "are calibrated" in text
    assert "% sure |" not in text  # so few images show nothing of the kind
    scores = evaluate(run, split="test", data=tiny, machine=CPU)
    export(run, folder, data=tiny)  # in the place of the earlier one
    text = (folder / "README.md").read_text()
    assert f"| test accuracy | {scores.accuracy:.2%} of 100 images in one view, in fp32" in text
    assert "the test set was opened 1 time)" in text and "what was measured on 100 test images" in text


def test_the_card_says_from_where_on_answers_are_sure_where_enough_images_were(run, tiny):
    receipt = export(run, run.path.parent / "sure.onnx", data=tiny)
    found = Threshold(0.95, 0.8, 0.4, 0.96, (0.9, 0.98), 100)
    receipt = replace(receipt, thresholds=(found, replace(found, target=0.99), replace(found, target=0.9)))
    told = (
        "from a probability of 80.00% on: 40.0% of the validation images; 96.00% of these 100 are right (95 % interval"
    )
    assert f"| 95% sure | {told} 90.00% to 98.00%) |" in card(run, receipt)
    assert "99% sure" not in card(run, receipt)  # 100 images cannot show it


def test_the_card_says_in_which_precision_its_accuracy_was_computed(run, tiny):
    assert run.summary["precision"] == "fp32" and precision_of(run, "validation") == "fp32"
    evaluate(run, data=tiny, machine=replace(CPU, precision="bf16"))
    assert precision_of(run, "validation") == "bf16"
    evaluate(run, data=tiny, machine=CPU)
    assert precision_of(run, "validation") == "fp32"


def test_what_is_handed_on_does_not_tell_where_the_images_lay(tiny, quick, tmp_path):
    there = tmp_path / "secret" / "shirts"
    for name in ("a", "b"):
        (there / name).mkdir(parents=True)
        for row in range(20):
            Image.fromarray(tiny.development.images[row, 0].numpy()).save(there / name / f"{row}.png")
    run = train(vary(quick, epochs=1, batch_size=16), there, tmp_path / "run", machine=CPU, plots=False)
    export(run, tmp_path / "handed")
    files = list((tmp_path / "handed").iterdir())
    assert b"general" in (tmp_path / "handed" / "model.onnx").read_bytes()
    assert len(files) == 4 and not any(b"secret" in path.read_bytes() for path in files)
    assert "on shirts" in (tmp_path / "handed" / "README.md").read_text()


def test_a_run_that_held_nothing_out_claims_nothing(tiny, quick, tmp_path):
    made = vary(quick, epochs=1, validation=0.0)
    run = train(made, tiny, tmp_path / "run", machine=CPU, plots=False)
    with pytest.raises(UserError, match=r"held no images out \(validation 0\), so it has no predictions"):
        run.predictions("validation")
    export(run, tmp_path / "out", data=tiny)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "accuracy" not in text and "not calibrated" in text and "    Ankle boot\n" in text


def test_names_stay_text_in_the_card(tiny, quick, tmp_path):
    names = ("a | b", "```", "# title", "two\nlines", *tiny.classes[4:])
    arrays = {"train_images": tiny.development.images.numpy(), "train_labels": tiny.development.labels.numpy()}
    data = assemble("odd|set", Pack(arrays, {"classes": list(names)}), {"location": "memory"})
    export(train(vary(quick, epochs=1), data, tmp_path / "run", machine=CPU, plots=False), tmp_path / "out", data=data)
    text = (tmp_path / "out" / "README.md").read_text()
    lines = text[text.index("## Classes") : text.index("## Limits")].splitlines()
    shown = [line for line in lines if line.startswith("    ")]
    assert len(shown) == 10 and "    two\N{REPLACEMENT CHARACTER}lines" in shown[3]
    assert "odd\\|set" in text and "odd|set" not in text


def test_anything_else_than_an_earlier_export_is_left_alone(run, tiny, tmp_path):
    with pytest.raises(UserError, match="views is 3"):
        export(run, tmp_path / "none", views=3, data=tiny)
    assert not (tmp_path / "none").exists()  # nothing is begun before everything is checked
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for taken in ("full", "file"):
        with pytest.raises(UserError, match="is taken and holds no export of ours; give another folder"):
            export(run, tmp_path / taken, data=tiny)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["letter.txt"]


def test_the_command_tells_the_card_and_the_program(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command_line(["train", "fashion-mini", "--epochs", "1", "--widths", "8", "16", "16", "--out", "run", "--no-report",
                  "--threads", "1"])  # fmt: skip
    assert command_line(["export", "run", "hand-on"]) == 0
    told = capsys.readouterr().out
    for name in ("model.onnx", "model.onnx.receipt.json", "README.md", "classify.py"):
        assert (tmp_path / "hand-on" / name).is_file() and f"hand-on/{name}" in told
