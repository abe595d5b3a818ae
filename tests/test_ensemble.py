"""Ensembles: members trained as if each were alone, averaged probabilities, and every command that takes a run."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch

from conftest import CPU
from thumbnet import load
from thumbnet.backend import prepare
from thumbnet.judging.evaluation import evaluate
from thumbnet.judging.explanation import activation_maps, embeddings
from thumbnet.models.ensemble import Ensemble, averaged, members_of
from thumbnet.recipes import recipe
from thumbnet.recipes.network import build_model
from thumbnet.recipes.recipe_file import recipe_table
from thumbnet.runs.run import Run
from thumbnet.shipping.bundle.folder import export
from thumbnet.training.loop import train
from thumbnet.training.optimize import l2_penalty
from thumbnet.training.step import gradients, loss_of

SMALL = {"widths": (8, 16, 16), "epochs": 2, "batch_size": 32}


@pytest.fixture(scope="module")
def two(tiny, tmp_path_factory):
    return train(recipe("general", members=2, **SMALL), tiny, tmp_path_factory.mktemp("two") / "run", machine=CPU)


def test_the_first_member_is_trained_as_if_it_were_alone(two, tiny, tmp_path):
    """Same order, augmentation and loss; only the rounding of the mean over members differs."""
    alone = train(recipe("general", **SMALL), tiny, tmp_path / "run", machine=CPU, plots=False)
    first, second = members_of(two.model())
    for name, value in alone.model().network.state_dict().items():
        torch.testing.assert_close(first.state_dict()[name], value, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(first.head.weight, second.head.weight, atol=0.01)
    assert two.summary["parameters"] == 2 * alone.summary["parameters"]


def test_members_begin_differently_and_the_same_for_the_same_seed():
    made = recipe("general", members=3, **SMALL)
    heads = [member.head.weight for member in members_of(build_model(made, channels=1, classes=4))]
    again = [member.head.weight for member in members_of(build_model(made, channels=1, classes=4))]
    assert all(torch.equal(head, other) for head, other in zip(heads, again, strict=True))
    assert not torch.equal(heads[0], heads[1]) and not torch.equal(heads[1], heads[2])
    single = build_model(replace(made, members=1), channels=1, classes=4)
    assert torch.equal(single.network.head.weight, heads[0]) and members_of(single) == [single]


def test_answers_are_the_mean_of_the_members_probabilities():
    logits = torch.randn(5, 3, 4)
    torch.testing.assert_close(averaged(logits).exp(), logits.softmax(-1).mean(1))

    class Says(torch.nn.Module):
        def __init__(self, logits):
            super().__init__()
            self.logits = logits

        def forward(self, images):
            return self.logits

    both = Ensemble([Says(logits[:, 0]), Says(logits[:, 1])])
    assert both(logits).shape == (5, 2, 4)
    torch.testing.assert_close(both.eval()(logits).exp(), logits[:, :2].softmax(-1).mean(1))


def test_each_member_has_the_same_targets():
    logits, labels = torch.randn(6, 2, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    each = [torch.nn.functional.cross_entropy(logits[:, m], labels, label_smoothing=0.1) for m in range(2)]
    assert loss_of(logits, labels, recipe("general", label_smoothing=0.1)).item() == pytest.approx(sum(each).item() / 2)
    mixed = torch.rand(6, 4).softmax(1)
    each = [torch.nn.functional.cross_entropy(logits[:, m], mixed) for m in range(2)]
    assert loss_of(logits, mixed, recipe("general", label_smoothing=0)).item() == pytest.approx(sum(each).item() / 2)


def test_a_members_gradient_is_what_it_has_alone_also_where_labels_are_mixed_and_batches_cut():
    both = recipe("general", **SMALL | {"members": 2, "micro_batch": 8})
    models = [build_model(replace(both, members=members), channels=1, classes=4) for members in (2, 1)]
    x, targets = torch.rand(32, 1, 28, 28), torch.rand(32, 4).softmax(1)
    for model in models:
        gradients(model.train(), x, targets, both if model is models[0] else replace(both, members=1), prepare(CPU))
    first, alone = members_of(models[0])[0], models[1].network
    for mine, its in zip(first.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-3, atol=1e-5)


def test_probabilities_are_averaged_in_float_also_where_the_network_computes_in_bf16():
    said = averaged(torch.randn(50, 2, 100).bfloat16())
    torch.testing.assert_close(said.exp().sum(1), torch.ones(50), rtol=0, atol=1e-5)


def test_neighbours_are_sought_by_what_both_members_see_alike(two, tiny):
    model, split = two.model().eval(), tiny.with_validation(**two.recipe.cut).validation
    each = [
        embeddings(torch.nn.Sequential(model.resize, model.normalize, member), split) for member in members_of(model)
    ]
    torch.testing.assert_close(embeddings(model, split), torch.cat(each, dim=1) / 2**0.5)


def test_a_recipe_file_from_before_there_were_ensembles_gives_one_network():
    fields = {name: value for name, value in vars(recipe("cifar100-80")).items() if name not in ("name", "members")}
    assert recipe("cifar100-80", **fields) == recipe("cifar100-80", members=1)
    assert recipe("cifar100-80").network == "2 x speednet_slim" and recipe("general").network == "speednet_slim"


def test_a_checkpoint_from_before_there_were_ensembles_is_of_one_network(two):
    one = Run(two.path, replace(two.recipe, members=1), two.data)
    newer = ("members", "hardest", "hardest_after", "start_from", "balance", "leave_out", "loss", "augment", "own")
    older = {name: value for name, value in recipe_table(one.recipe).items() if name not in newer}
    told = [{**older, "epochs": None}, two.data["fingerprint"], two.data["classes"]]
    assert one.identity == hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16] != two.identity


def test_the_penalty_is_a_members_mean():
    made = recipe("plain", members=2, l2=1e-3)
    model = build_model(made, channels=1, classes=4)
    each = [l2_penalty(member, replace(made, members=1)) for member in members_of(model)]
    assert l2_penalty(model, made) == pytest.approx(sum(each) / 2)


def test_an_ensemble_is_evaluated_exported_and_explained_like_any_network(two, tiny, tmp_path):
    assert evaluate(two, data=tiny).accuracy == two.summary["validation_accuracy"]
    receipt = export(two, tmp_path / "both.onnx", data=tiny)
    assert receipt.same_class == receipt.images
    split = tiny.with_validation(**two.recipe.cut).validation
    pixels = split.images[split.rows][:, 0].numpy()  # N H W
    of_the_run, of_the_file = load(two.path), load(tmp_path / "both.onnx")
    assert (of_the_run.predict(pixels) == of_the_file.predict(pixels)).all()

    model = two.model().eval()
    x = torch.rand(3, *tiny.train.images.shape[1:])
    maps = activation_maps(model, x, torch.tensor([0, 1, 2]))
    one = activation_maps(
        torch.nn.Sequential(model.resize, model.normalize, members_of(model)[1]), x, torch.tensor([0, 1, 2])
    )
    assert maps.shape == one.shape and not torch.allclose(maps, one)


def test_an_ensemble_interrupted_goes_on_to_the_same_bits(two, tiny, tmp_path, monkeypatch):
    from thumbnet.errors import Interrupted
    from thumbnet.signals import StopRequested
    from thumbnet.training import loop

    calls = []
    plain = loop.set_learning_rate

    def stop_once(*words):
        calls.append(1)
        if len(calls) == 9:
            raise StopRequested("SIGINT")
        plain(*words)

    monkeypatch.setattr(loop, "set_learning_rate", stop_once)
    with pytest.raises(Interrupted):
        train(two.recipe, tiny, tmp_path / "run", machine=CPU, plots=False)
    again = train(two.recipe, tiny, tmp_path / "run", machine=CPU, plots=False)
    for name, value in two.model().state_dict().items():
        assert torch.equal(again.model().state_dict()[name], value), name
