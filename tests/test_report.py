"""The pages: complete, true to the run, safe for any name, and whole in a real browser at three widths."""

import html
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from browser import check_page, seen
from conftest import CPU, thumbnet
from thumbnet.cli.main import run as command_line
from thumbnet.data.datasets import load_dataset
from thumbnet.doctor import examine_dataset
from thumbnet.doctor.page import write_doctor_page
from thumbnet.errors import UserError
from thumbnet.judging.calibration import confidence_and_hits, threshold_for
from thumbnet.judging.comparison import compare
from thumbnet.judging.evaluation import evaluate
from thumbnet.judging.robustness import evaluate_robustness
from thumbnet.plots.curves import classic_figure, curve
from thumbnet.recipes import recipe
from thumbnet.report import sections, write_comparison_report, write_run_report
from thumbnet.runs.run import Run
from thumbnet.studies.study_file import study_of
from thumbnet.training.loop import train

HOSTILE = "<img src=x onerror=alert(1)>"
LONG = "a_class_with_a_very_long_name_that_no_column_was_made_for"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Images of three classes, one named as an attack and one at length; a third of the files too."""
    root = tmp_path_factory.mktemp("hostile") / "<b>bold</b> {{ 7*7 }}"
    random = np.random.default_rng(0)
    for label, name in enumerate((HOSTILE, LONG, "plain & simple")):
        (root / name).mkdir(parents=True)
        for i in range(40):
            pixels = random.integers(0, 200, (32, 32, 3), np.uint8)
            shown = (label + (i % 5 == 0)) % 3  # a fifth look like the next class, so that there are mistakes
            pixels[8 * shown : 8 * shown + 12, :, shown] = 255
            Image.fromarray(pixels).save(root / name / (f"{HOSTILE}{i}.png" if i % 3 == 0 else f"{i}.png"))
    return root


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory) -> Run:
    made = recipe("general", widths=(8, 16, 16), epochs=2, batch_size=20, validation=0.3)
    found = train(made, load_dataset(folder), tmp_path_factory.mktemp("reported") / "run", machine=CPU)
    evaluate_robustness(found, images=12, machine=CPU)
    return found


@pytest.fixture(scope="module")
def page(run) -> Path:
    return write_run_report(run)


def test_the_page_of_a_run_is_whole_in_a_browser_at_three_widths(page):
    found = check_page(page)
    assert found[0]["images"] > 20


def test_names_that_are_markup_show_as_text(page):
    [view, *_], _ = seen(page)
    assert HOSTILE in view["text"]
    assert "<b>bold</b> {{ 7*7 }}" in view["text"]  # as it stands, not as markup
    assert "<b>bold</b> 49" not in view["text"]  # nor computed, in any of the places where the name stands
    assert "<img src=x" not in page.read_text()


def test_each_mistake_has_the_name_of_its_file(page, run):
    said = run.predictions("validation")
    wrong = {file for file, hit in zip(said.files, said.hits().tolist(), strict=True) if not hit}
    part = page.read_text().split('<section id="mistakes">')[1].split("</section>")[0]
    shown = [html.unescape(name) for name in re.findall('<p class="note">(.*?)</p>', part)]
    assert len(shown) == min(len(wrong), sections.MISTAKES) > 0
    assert set(shown) <= wrong


def test_the_page_tells_what_the_run_reached(page, run):
    text = page.read_text()
    assert f"{run.summary['validation_accuracy']:.2%}" in text
    low, high = run.summary["validation_interval95"]
    assert f"{low:.2%} to {high:.2%}" in text
    for words in ("epochs", "batch_size", run.data["fingerprint"], "Worst mistakes", "Calibration", "Robustness"):
        assert words in text
    assert f"{run.temperature:.2f}" in text
    assert re.search(r"test set was opened 0\s+times", text)


def test_the_command_that_does_it_again_has_the_machine_and_how_the_folder_was_read(run, tmp_path):
    from thumbnet.report.sections import headline, judged, reproduce

    [line] = reproduce(run)
    assert line.endswith("--device cpu --precision fp32 --threads 1 --image-size 32"), line
    broken = Run(run.path, run.recipe, run.data | {"broken": ["a/b.png"]})
    assert reproduce(broken)[0].endswith(" --skip-broken")
    tile = dict(headline(run, judged(run))["cards"])
    assert tile[f"calibration error at temperature {run.temperature:.2f}"].endswith("%")


def test_balanced_accuracy_has_a_tile_where_classes_are_uneven():
    from thumbnet.judging.evaluation import score
    from thumbnet.report.sections import tiles_beside_accuracy

    predicted = torch.nn.functional.one_hot(torch.tensor([0] * 9 + [1] + [0] * 9), 6).float()
    uneven = score(predicted, torch.tensor([0] * 8 + [1] * 2 + [0] * 9), tuple("abcdef"), split="test")
    even = score(predicted[:10, :2], torch.tensor([0] * 5 + [1] * 5), ("a", "b"), split="test")
    names = [[name for name, _ in tiles_beside_accuracy(scores)] for scores in (uneven, even)]
    assert names == [["top-5 (95 % interval)", "balanced accuracy", "macro F1"], ["macro F1"]]
    assert dict(tiles_beside_accuracy(uneven))["balanced accuracy"] == "75.00%"


def test_the_page_needs_no_network_and_is_small(page):
    text = page.read_text()
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert "<script" not in text
    assert len(text) < 3_000_000


def test_the_same_run_gives_the_same_page(page, run, tmp_path):
    assert write_run_report(run, tmp_path / "again.html").read_text() == page.read_text()


def test_a_run_without_validation_says_how_to_judge_it(tiny, tmp_path):
    run = train(
        recipe("general", widths=(8, 16, 16), epochs=1, batch_size=32, validation=0), tiny, tmp_path / "r", machine=CPU
    )
    found = check_page(write_run_report(run))
    assert "--split test" in found[0]["text"]
    assert "Worst mistakes" not in found[0]["text"]


def test_data_that_are_gone_leave_out_the_images_with_the_reason(tiny, tmp_path):
    run = train(recipe("general", widths=(8, 16, 16), epochs=1, batch_size=32), tiny, tmp_path / "r", machine=CPU)
    text = write_run_report(run).read_text()  # its data were in memory only
    assert "The images cannot be shown" in text and "Calibration" in text


def test_data_that_were_moved_are_shown_from_where_data_dir_says(run, folder, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(run.path, moved)
    told = json.loads((moved / "data.json").read_text())
    (moved / "data.json").write_text(json.dumps(told | {"location": str(tmp_path / "gone")}))
    assert command_line(["report", str(moved)]) == 0
    assert "say where they are now with --data-dir" in (moved / "report.html").read_text()
    assert command_line(["report", str(moved), "--data-dir", str(folder)]) == 0
    assert "Worst mistakes" in (page := (moved / "report.html").read_text()) and "cannot be shown" not in page
    assert command_line(["report", str(moved), "--data-dir", str(tmp_path / "nowhere")]) == 2  # as evaluate has it
    assert "there is no folder" in capsys.readouterr().err
    assert command_line(["report", str(moved), str(run.path), "--data-dir", str(folder)]) == 2
    assert "is for the page of one run; a comparison shows no images, leave it out" in capsys.readouterr().err


def test_test_images_that_are_gone_or_others_are_not_shown_as_those_that_were_measured(tmp_path):
    random = np.random.default_rng(0)
    for place in ("a", "b", "test/a", "test/b"):
        (tmp_path / "set" / place).mkdir(parents=True)
        for number in range(12):
            pixels = random.integers(0, 255, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / place / f"{number}.png")
    data = load_dataset(tmp_path / "set", validation=0)
    made = recipe("general", widths=(8, 16, 16), epochs=1, batch_size=8, validation=0.0)
    run = train(made, data, tmp_path / "run", machine=CPU, plots=False)
    evaluate(run, split="test", machine=CPU)
    assert "Worst mistakes" in (page := write_run_report(run).read_text()) and "cannot be shown" not in page
    Image.fromarray(random.integers(0, 255, (32, 32, 3), np.uint8)).save(tmp_path / "set" / "test" / "a" / "3.png")
    assert "the data have changed since the predictions were made" in write_run_report(run).read_text()
    shutil.rmtree(tmp_path / "set" / "test")
    assert "the data have changed since the predictions were made" in write_run_report(run).read_text()


def test_commands_on_the_page_can_be_pasted_whatever_the_folder_is_called(run, tmp_path):
    place = tmp_path / "my runs" / "$one"
    shutil.copytree(run.path, place)
    (place / "robustness.json").unlink()
    page = html.unescape(write_run_report(Run.open(place)).read_text())
    assert f"thumbnet evaluate '{place}' --robustness" in page and f"thumbnet evaluate {place}" not in page


def test_a_class_never_predicted_has_a_dash_and_the_reason(run, tmp_path):
    import dataclasses

    import torch

    shutil.copytree(run.path, tmp_path / "run")
    copy = Run.open(tmp_path / "run")
    kept = copy.predictions("validation")
    copy.save_predictions(dataclasses.replace(kept, logits=torch.zeros_like(kept.logits) + torch.tensor([1.0, 0, 0])))
    text = write_run_report(copy).read_text()
    assert "<td>-</td>" in text and "no image was taken for the class" in text
    assert "nan" not in re.sub(r"base64,[^\"]*", "", text).lower().replace("nanogpt", "")


def test_an_unfinished_run_is_refused(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(UserError, match="is unfinished"):
        write_run_report(Run.open(tmp_path / "run"))


def test_the_page_of_a_comparison_is_whole(run, folder, tmp_path):
    runs = [run]
    for seed, changes in ((1, {}), (0, {"epochs": 3}), (1, {"epochs": 3})):
        made = recipe(
            "general", widths=(8, 16, 16), batch_size=20, validation=0.3, seed=seed, **({"epochs": 2} | changes)
        )
        runs.append(train(made, load_dataset(folder), tmp_path / f"{seed}{len(changes)}", machine=CPU))
    known = (
        0.5,
        0.6,
        0.75,
        0.8,
    )  # so few images may give all seeds one number, and then there is no difference to draw
    for made, accuracy in zip(runs, known, strict=True):
        path = shutil.copytree(made.path, tmp_path / f"known {accuracy}") / "summary.json"
        path.write_text(json.dumps(made.summary | {"validation_accuracy": accuracy}))
    runs = [Run.open(tmp_path / f"known {accuracy}") for accuracy in known]
    found = compare(runs)
    view = check_page(write_comparison_report(found, runs, tmp_path / "compared.html"))[0]
    assert found.pairs[0].sentence in " ".join(view["text"].split())
    assert view["images"] == 3  # curves, ends, and the differences


def test_the_page_of_a_study_shows_the_original_figures_beside(tmp_path):
    from thumbnet.report import write_study_report
    from thumbnet.studies.study import judge_study, run_study

    rows = [{"name": HOSTILE, "note": "noted"}, {"name": "other", "flip": False}]
    table = {"variant": rows, "seeds": 1, "fields": {"epochs": 1, "widths": [8, 16, 16], "batch_size": 500}}
    study = study_of(table, default_name="hostile")
    said = {"reported, test": "83.40 % <b>bold</b>", "in words": "converges"}
    study = replace(study, variants=tuple(replace(variant, stated=said) for variant in study.variants))
    done = run_study(study, tmp_path / "study", jobs=2, machine=CPU)
    view = check_page(write_study_report(study, judge_study(study, done), done, tmp_path / "study.html"))[0]
    assert HOSTILE in view["text"] and "83.40 % <b>bold</b>" in view["text"]
    assert "not about their recipes" in " ".join(view["text"].split())
    assert view["images"] == 4  # curves and ends of both, and a figure each
    ours = done[0][1]
    gap = 100 * (ours.metrics[-1]["train_accuracy"] - ours.summary["validation_accuracy"])
    for number in (
        f"{ours.summary['validation_accuracy']:.2%}",
        f"{gap:.1f}",
        f"{ours.summary['validation_loss']:.4f}",
    ):
        assert number in view["text"], number


def test_without_a_row_of_metrics_there_is_no_page_and_one_line_says_why(run, tmp_path):
    path = shutil.copytree(run.path, tmp_path / "run")
    (path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match=r"has no row in its metrics.jsonl; it was emptied after training"):
        write_run_report(Run.open(path))


def test_a_threshold_is_chosen_on_validation_images_also_where_test_images_are_judged(run, tmp_path):
    copy = Run.open(shutil.copytree(run.path, tmp_path / "run"))
    kept = copy.predictions("validation")
    replace(kept, split="test", logits=torch.zeros_like(kept.logits)).save(copy.predictions_path("test", 1))
    found = sections.judged(copy)
    assert found.predictions.split == "test"
    rows = sections.calibration(found)["thresholds"]
    chosen_on = confidence_and_hits(kept.logits.double() / copy.temperature, kept.labels)
    expected = [threshold_for(*chosen_on, target) for target in sections.TARGETS]
    assert [row and row.confidence for _, row, _ in rows] == [row and row.confidence for row in expected]
    assert all(row is None or row.images == 0 for _, row, _ in rows)  # no test image is that sure


def test_a_threshold_that_too_few_images_were_sure_of_says_how_many_it_takes(run, tmp_path):
    copy = Run.open(shutil.copytree(run.path, tmp_path / "run"))
    kept = copy.predictions("validation")
    right = 20 * torch.nn.functional.one_hot(kept.labels, kept.logits.shape[1]).float()
    replace(kept, logits=right).save(copy.predictions_path("validation", 1))
    images = len(kept.labels)
    assert 35 <= images < 73, "by Wilson's interval 35 images show 90 %, 73 show 95 %, 381 show 99 %"
    needed = {target: number for target, _, number in sections.calibration(sections.judged(copy))["thresholds"]}
    assert needed == {"90%": 0, "95%": 73, "99%": 381}
    page = write_run_report(copy).read_text()
    assert "sure to show 99%: it takes at least 381 without a mistake" in page
    assert "sure to show 90%" not in page


def test_the_last_point_of_a_curve_stands_where_the_run_ended(run):
    rows = [run.metrics[0], {**run.metrics[0], "epoch": 2}]
    figure = curve("accuracy", rows, recipe("cifar10-83"))
    assert figure.axes[0].lines[0].get_xdata().tolist() == [1, 1.4]


def test_a_curve_says_of_which_images_it_is_and_its_legend_stays_in_the_frame(run):
    figure = curve("loss", run.metrics, recipe("cifar10-83", hardest=0.7))
    [legend] = [axes.get_legend() for axes in figure.axes]
    assert legend.get_texts()[0].get_text() == "training (hardest images), labels smoothed by 0.2"
    figure.draw_without_rendering()
    frame, box = figure.bbox, legend.get_window_extent()
    assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
    classic = classic_figure(run.metrics, top5=False, hardest=True)
    assert [text.get_text() for text in classic.axes[0].get_legend().get_texts()] == ["Train (hardest images)", "Valid"]
    plain = curve("accuracy", run.metrics, recipe("cifar10-83"))
    assert plain.axes[0].get_legend().get_texts()[0].get_text() == "training"


def test_the_page_of_the_doctor_is_whole(folder, tmp_path):
    data = load_dataset(folder)
    view = check_page(write_doctor_page(data, examine_dataset(data), tmp_path / "doctor.html"))[0]
    assert HOSTILE in view["text"]


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """The command line in this process, where torch is loaded already; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        code = command_line([str(word) for word in words])
        return code, *capsys.readouterr()

    return call


SHORT = ("--epochs", 1, "--widths", 8, 16, 16, "--batch-size", 500, "--threads", 1)


def test_train_writes_the_page_and_can_be_told_not_to(command, tmp_path):
    code, out, errors = command("train", "fashion-mini", "--out", "a", *SHORT)
    assert code == 0, errors
    assert (tmp_path / "a" / "report.html").is_file() and "a/report.html" in out
    command("train", "fashion-mini", "--out", "b", "--no-report", *SHORT)
    assert (tmp_path / "b" / "summary.json").is_file() and not (tmp_path / "b" / "report.html").exists()
    code, _, errors = command("report", "a", "b", "-o", "both.html", "--json")
    assert code == 2 and "same recipe and seed" in errors
    one = json.loads(command("report", "b", "--json")[1])
    assert one["bytes"] == (tmp_path / "b" / "report.html").stat().st_size


def test_several_seeds_give_mean_spread_and_interval(command):
    words = ("train", "fashion-mini", "--seeds", 2, "--seed", 3, "--out", "s", *SHORT, "--no-report")
    found = json.loads(command(*words, "--json")[1])
    values = [run["validation_accuracy"] for run in found["runs"]]
    assert [run["seed"] for run in found["runs"]] == [3, 4]
    assert found["validation_accuracy"] == pytest.approx(sum(values) / 2)
    assert found["validation_accuracy_sd"] == pytest.approx(np.std(values, ddof=1))
    code, out, errors = command(*words, "--resume")
    assert code == 0 and "is finished already" in errors
    assert "n = 2 seeds" in out and "thumbnet evaluate s/s3 s/s4" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report"], "name a run folder"),
        (["report", "nowhere"], "there is no run folder nowhere"),
        (["train", "fashion-mini", "--seeds", "0"], "seeds is 0"),
        (["train", "fashion-mini", "--seeds", "2", "--time-budget", "30s"], "leave out --seeds"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(words, message, tmp_path):
    result = thumbnet(*words, cwd=tmp_path)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert message in result.stderr
