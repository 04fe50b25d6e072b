import pytest
import torch

from ppmodels.diffusion.guidance import classifier, classifier_free, drop_labels
from ppmodels.diffusion.mixture import NoisedMixture
from ppmodels.diffusion.parametrisation import Denoiser
from ppmodels.diffusion.samplers import ancestral
from ppmodels.diffusion.schedule import linear

SCHEDULE = linear()


@pytest.fixture
def classes():
    """Two overlapping classes."""
    return NoisedMixture.isotropic(torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=torch.float64), 0.9)


@pytest.fixture
def points(seeded):
    return torch.randn(40, 2, generator=seeded(), dtype=torch.float64), torch.randint(1, 1001, (40,))


def test_exact_classifier_at_scale_one_is_the_conditional_score(classes, points):
    x, t = points
    label = torch.arange(40) % 2
    guided = classifier(
        classes.network(SCHEDULE),
        lambda v, s: classes.log_label(v, *SCHEDULE.level(s, v)),
        label,
        SCHEDULE,
        guidance_scale=1.0,
    )
    exact = classes.conditional_network(SCHEDULE)(x, t, label)
    torch.testing.assert_close(guided(x, t), exact, rtol=0, atol=1e-8)


def test_classifier_free_identities(classes, points):
    x, t = points
    network, label = classes.conditional_network(SCHEDULE), torch.arange(40) % 2
    conditional, free = network(x, t, label), network(x, t, torch.full((40,), 2))

    def guided(rho):
        return classifier_free(network, label, 1 + rho, null_label=2)(x, t)

    torch.testing.assert_close(guided(0.0), conditional, rtol=0, atol=1e-12)
    torch.testing.assert_close(guided(-1.0), free, rtol=0, atol=1e-12)
    torch.testing.assert_close(guided(2.5), 3.5 * conditional - 2.5 * free, rtol=0, atol=1e-12)
    torch.testing.assert_close(guided(2.5), conditional + 2.5 * (conditional - free), rtol=0, atol=1e-12)


def test_stronger_guidance_is_surer_and_narrower(classes, seeded):
    network, label = classes.conditional_network(SCHEDULE), torch.ones(3000, dtype=torch.long)
    entropies, variances = [], []
    for rho in (0, 1, 3):
        denoiser = Denoiser(classifier_free(network, label, 1 + rho, null_label=2), SCHEDULE)
        noise = torch.randn(3000, 2, generator=seeded(), dtype=torch.float64)
        drawn = ancestral(denoiser, noise, num_inference_steps=60, generator=seeded(1))
        log_label = classes.log_label(drawn)
        entropies.append(float(-(log_label.exp() * log_label).sum(-1).mean()))
        variances.append(float(drawn.var(0).sum()))
    assert entropies[0] > 1.2 * entropies[1] > 1.4 * entropies[2]
    assert variances[0] > 1.05 * variances[1] > 1.1 * variances[2]


def test_one_call_answers_both_questions(classes, points):
    x, t = points
    calls = []
    network = classes.conditional_network(SCHEDULE)

    def counted(v, s, y):
        calls.append(len(v))
        return network(v, s, y)

    classifier_free(counted, torch.zeros(40).long(), 2.0, null_label=2)(x, t)
    assert calls == [80]


def test_labels_are_dropped_at_the_rate(seeded):
    label = torch.arange(100_000) % 10
    dropped = drop_labels(label, 10, 0.15, seeded())
    assert float((dropped == 10).double().mean()) == pytest.approx(0.15, abs=0.005)
    kept = dropped != 10
    assert torch.equal(dropped[kept], label[kept])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda n: classifier_free(n, None, 2.0), "guidance_scale 2.0 needs a label"),
        (lambda n: classifier_free(n, torch.zeros(3).long(), 2.0), "needs null_label"),
        (lambda n: classifier(n, n, None, SCHEDULE), "needs a label for every row"),
        (lambda n: drop_labels(torch.zeros(3).long(), 1, 1.5), "between 0 and 1"),
        (
            lambda n: classifier_free(n, torch.zeros(2).long())(torch.zeros(3, 2), torch.ones(3)),
            r"labels must be \(3,\), one a row; got \(2,\)",
        ),
    ],
)
def test_bad_input_gets_one_clear_line(classes, call, says):
    with pytest.raises(ValueError, match=says):
        call(classes.network(SCHEDULE))
