"""Code of one's own runs where somebody has said so, for that very text; nothing that is received says so."""

import json
import os
import re
from pathlib import Path

import pytest
import torch

import thumbnet
from conftest import CPU, pictures
from conftest import thumbnet as in_process
from own_files import NETWORK, plain, written
from thumbnet import own_code
from thumbnet.cli.main import run as command
from thumbnet.errors import UserError
from thumbnet.recipes.recipe_file import read_recipe, write_recipe
from thumbnet.runs.run import Run
from thumbnet.training.loop import train

pytestmark = pytest.mark.usefixtures("own_store")


def test_a_run_folder_from_elsewhere_runs_nothing(tiny, tmp_path, monkeypatch):
    mine = written(tmp_path, f"{NETWORK}\nopen({str(tmp_path / 'ran')!r}, 'w').close()\n")
    run = train(plain(model=mine), tiny, tmp_path / "run", machine=CPU)
    (tmp_path / "ran").unlink()
    monkeypatch.setattr(own_code, "store", lambda: tmp_path / "of somebody else")
    own_code.module_of.cache_clear()
    stranger = Run.open(run.path)
    assert stranger.summary["parameters"] > 0  # what needs no network is shown
    with pytest.raises(UserError, match=r"mine.py \([0-9a-f]{8}\) is a program that was not run here before; read it"):
        stranger.model()
    assert not (tmp_path / "ran").exists()
    thumbnet.trust(run.path / "code" / "mine.py")
    stranger.model()
    assert (tmp_path / "ran").exists()


def test_a_copy_that_was_changed_in_the_cache_is_not_run(tmp_path):
    mine = plain(model=written(tmp_path, NETWORK + "#")).model
    own_code.source_of(mine)[0].write_text("raise SystemExit")
    with pytest.raises(UserError, match=r"mine.py was changed; delete it, and name your file again"):
        thumbnet.create_model(mine, classes=3)


@pytest.mark.parametrize(
    "name", ["../mine.py", "/tmp/mine.py", "a/../../mine.py", "..\\mine.py", "mine.py\n", "x\n.py"]
)
def test_no_name_leads_out_of_the_cache(name):
    with pytest.raises(UserError, match="unknown model"):
        plain(model=f"{name}@{'0' * 32}")


def test_a_recipe_is_read_and_written_without_the_file(tmp_path):
    chosen = plain(model=written(tmp_path, NETWORK, trusted=False))
    Path(tmp_path / "mine.py").unlink()
    write_recipe(chosen, tmp_path)
    assert read_recipe(tmp_path) == chosen


def test_what_others_could_have_written_is_not_run(tmp_path):
    mine = plain(model=written(tmp_path, NETWORK + "# of others\n")).model
    own_code.store().chmod(0o777)
    with pytest.raises(UserError, match=r"mine\.py is not run: .* is not this user's alone; delete it"):
        thumbnet.create_model(mine, classes=3)
    own_code.store().chmod(0o700)
    thumbnet.create_model(mine, classes=3)


def test_only_flags_that_take_code_trust_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, NETWORK, trusted=False)
    for words in (
        ["predict", "run", "--", "--loss=mine.py"],
        ["list", "models", "--loss=mine.py"],
        ["train", "x", "--", "--model", "mine.py"],
    ):
        assert command(words) == 2
    capsys.readouterr()
    assert not own_code.store().exists()


def test_two_files_of_one_name_are_kept_apart_and_trusted_from_there(tiny, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    loss = written(tmp_path / "other", "from torch.nn.functional import cross_entropy as loss\n")
    run = train(plain(model=written(tmp_path, NETWORK), loss=loss, epochs=0.2), tiny, tmp_path / "run", machine=CPU)
    kept = sorted((tmp_path / "run" / "code").glob("*/mine.py"))
    assert {path.read_text() for path in kept} == {NETWORK, (tmp_path / "other" / "mine.py").read_text()}
    monkeypatch.setattr(own_code, "store", lambda: tmp_path / "of somebody else")
    own_code.run_anew()
    for path in kept:
        thumbnet.trust(path)
    own_code.check_trusted(run.recipe.own_code)


def test_a_copy_by_another_name_is_the_same_text(tmp_path):
    mine = plain(model=written(tmp_path, NETWORK + "# renamed\n", trusted=False)).model
    (tmp_path / "mine.py").rename(tmp_path / "read.py")
    thumbnet.trust(tmp_path / "read.py")
    assert isinstance(thumbnet.create_model(mine, classes=3), torch.nn.Module)


def test_a_recipe_in_a_run_folder_that_names_a_path_is_damaged(tmp_path):
    write_recipe(plain(model=written(tmp_path, NETWORK)), tmp_path)
    text = (tmp_path / "recipe.toml").read_text()
    (tmp_path / "recipe.toml").write_text(re.sub(r"mine\.py@\w+", "mine.py", text))
    with pytest.raises(UserError, match=r"recipe\.toml is damaged: model is 'mine\.py', a path"):
        read_recipe(tmp_path)


@pytest.mark.parametrize("trick", ["--model=evil.py", "--trust=evil.py"])
def test_nothing_that_a_study_names_is_taken_for_a_flag_that_trusts(tmp_path, trick, monkeypatch):
    monkeypatch.undo()
    written(tmp_path, f"{NETWORK}# {tmp_path}\n", "evil.py", trusted=False)
    pictures(tmp_path / trick)
    pictures(tmp_path / "pics")
    rest = "seeds = 1\n[fields]\nepochs = 0.1\n[grid]\ncrop = [0]\n"
    (tmp_path / "a.toml").write_text(f'dataset = "{trick}"\n{rest}')
    (tmp_path / "b.toml").write_text(f'dataset = "pics"\ngroup_by = "{trick}"\n{rest}')
    for file in ("a.toml", "b.toml"):
        in_process("study", file, "--threads", 1, cwd=tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is a program that was not run here before"):
        own_code.check_trusted([plain(model="evil.py").model])


def test_that_a_file_was_read_but_another_text_is_meant_is_told(tmp_path):
    mine = plain(model=written(tmp_path, NETWORK + "# as sent\n", trusted=False)).model
    written(tmp_path, NETWORK + "# as read, with a remark\n")
    with pytest.raises(
        UserError, match=r"not run here before; the mine\.py that you trusted has another text; read it"
    ):
        thumbnet.create_model(mine, classes=3)


def test_a_pipe_does_not_hold_the_program(tmp_path):
    os.mkfifo(tmp_path / "mine.py")
    with pytest.raises(UserError, match=r"cannot read the Python file .*mine\.py: it is no regular file"):
        plain(model=str(tmp_path / "mine.py"))


def test_a_file_beside_a_study_is_not_imported_by_its_processes(tmp_path):
    """It is called as a library that they use."""
    (tmp_path / "tomli_w.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    (tmp_path / "s.toml").write_text(
        'dataset = "fashion-mini"\nseeds = 1\n[fields]\nepochs = 0.1\n[grid]\ncrop = [0, 1]\n'
    )
    assert in_process("study", "s.toml", "--threads", 1, cwd=tmp_path).returncode == 0
    assert not (tmp_path / "ran").exists()


def test_typing_its_name_trusts_a_file_and_a_file_of_options_does_not(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, NETWORK, trusted=False)
    (tmp_path / "options.toml").write_text('model = "mine.py"\nepochs = 0.1\nreport = false\n')
    assert command(["train", "fashion-mini", "--config", "options.toml", "--device", "cpu"]) == 2
    assert "mine.py (" in (told := capsys.readouterr().err) and "add --trust code/mine.py" in told
    assert command(["train", "fashion-mini", "--model", "mine.py", "--epochs", "0.1", "--no-report", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["model"].startswith("mine.py@")
    own_code.module_of.cache_clear()
    assert command(["train", "fashion-mini", "--config", "options.toml", "--out", "again"]) == 0


def test_trust_can_be_given_with_any_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, NETWORK + "# trusted by a flag\n", trusted=False)
    (tmp_path / "options.toml").write_text('model = "mine.py"\nepochs = 0.1\nreport = false\n')
    options = ["--config", "options.toml", "--out", "run"]
    assert command(["train", "fashion-mini", *options]) == 2
    assert command(["train", "fashion-mini", *options, "--trust", "mine.py"]) == 0
    assert command(["evaluate", "run", "--trust", "absent.py"]) == 2
    assert "cannot read the Python file absent.py" in capsys.readouterr().err
