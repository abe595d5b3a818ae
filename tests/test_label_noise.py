"""How likely labels are wrong: the noise is found, taken out, and weighed against hard images."""

import pytest
import torch

from thumbnet.doctor.label_noise import chances_of_wrong, noise_of_labels, without_noise
from thumbnet.doctor.labels import in_doubt

CLASSES = 4


def drawn(noise, images=8_000, *, hard=0.3, seed=0):
    """Images of which a part is hard; the true probabilities of their noisy labels, their labels, and which are wrong."""
    random = torch.Generator().manual_seed(seed)
    among = torch.tensor([0.999, 0.6, 0.9], dtype=torch.float64)
    sure = among[torch.multinomial(torch.tensor([1 - hard, hard / 2, hard / 2]), images, True, generator=random)][
        :, None
    ]
    truth = torch.randint(CLASSES, (images,), generator=random)
    shown = (1 - sure) / (CLASSES - 1) * torch.ones(images, CLASSES, dtype=torch.float64)
    shown.scatter_(1, truth[:, None], sure)
    shows = torch.multinomial(shown, 1, generator=random)[:, 0]  # what it is, which a network can only guess
    labels = torch.multinomial(noise[shows], 1, generator=random)[:, 0]
    return shown @ noise, labels, labels != shows, shown


def uniform(wrong):
    noise = torch.full((CLASSES, CLASSES), wrong / (CLASSES - 1), dtype=torch.float64)
    return noise.fill_diagonal_(1 - wrong)


def one_way(wrong):
    """Of the first class a part is called the second, and nothing else is wrong."""
    noise = torch.eye(CLASSES, dtype=torch.float64)
    noise[0, :2] = torch.tensor([1 - wrong, wrong], dtype=torch.float64)
    return noise


@pytest.mark.parametrize("noise", [uniform(0.02), uniform(0.2), one_way(0.3)], ids=["2 %", "20 %", "one way"])
def test_noise_is_found_and_the_sum_of_chances_is_the_number_of_wrong_labels(noise):
    probabilities, labels, wrong, shown = drawn(noise)
    assert noise_of_labels(probabilities, labels) == pytest.approx(noise, abs=0.05)
    assert noise_of_labels(probabilities, labels).sum(1) == pytest.approx(1.0)
    assert without_noise(probabilities, noise) == pytest.approx(shown, abs=0.02)
    chances, others = chances_of_wrong(probabilities, labels)
    assert chances.sum().item() == pytest.approx(wrong.sum().item(), rel=0.25)
    assert chances[wrong].mean() > chances[~wrong].mean() + 0.3
    assert (others != labels).all()


def test_chances_are_frequencies():
    probabilities, labels, wrong, _ = drawn(uniform(0.2), images=40_000)
    chances, _ = chances_of_wrong(probabilities, labels)
    for low, high in ((0.0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.0)):
        part = (chances >= low) & (chances <= high)
        assert part.sum() > 200
        assert wrong[part].double().mean().item() == pytest.approx(chances[part].mean().item(), abs=0.1)
    listed = in_doubt(chances, probabilities, labels)
    assert wrong[listed].double().mean() > 0.85 and chances[listed].min() > 0.5


def test_hard_images_with_right_labels_are_not_doubted():
    """The networks are wrong about one image in six, and no label is."""
    probabilities, labels, wrong, _ = drawn(torch.eye(CLASSES, dtype=torch.float64), hard=0.7)
    assert not wrong.any() and (probabilities.argmax(1) != labels).double().mean() > 0.15
    chances, _ = chances_of_wrong(probabilities, labels)
    assert len(in_doubt(chances, probabilities, labels)) < 0.01 * len(labels)
    assert chances.sum() < 0.02 * len(labels)


def test_the_class_that_a_wrong_label_hides_is_named():
    probabilities, labels, _, _ = drawn(one_way(0.3))
    chances, others = chances_of_wrong(probabilities, labels)
    listed = torch.tensor(in_doubt(chances, probabilities, labels))
    assert (labels[listed] == 1).double().mean() > 0.95 and (others[listed] == 0).double().mean() > 0.95


def test_what_is_mistaken_for_the_label_is_named_before_what_the_image_looks_more_like():
    probabilities, labels, _, _ = drawn(one_way(0.3))
    odd = torch.tensor([[0.3, 0.2, 0.5, 0.0]], dtype=torch.float64) @ one_way(0.3)
    _, others = chances_of_wrong(torch.cat([probabilities, odd]), torch.cat([labels, torch.tensor([1])]))
    assert others[-1] == 0


def test_few_images_a_class_that_is_never_named_and_impossible_answers_give_numbers():
    probabilities = torch.tensor([[0.9, 0.1, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    labels = torch.tensor([0, 2, 2])
    chances, others = chances_of_wrong(probabilities, labels)
    assert torch.isfinite(chances).all() and (chances >= 0).all() and (chances <= 1).all()
    assert others.tolist()[1:] == [1, 0]


def test_the_likeliest_wrong_are_first_and_of_equal_ones_the_least_probable_label():
    wrong = torch.tensor([0.6, 0.5, 0.9, 0.6])
    probabilities = torch.tensor([[0.2, 0.8], [0.1, 0.9], [0.3, 0.7], [0.1, 0.9]])
    assert in_doubt(wrong, probabilities, torch.zeros(4, dtype=torch.int64)) == [2, 3, 0]
