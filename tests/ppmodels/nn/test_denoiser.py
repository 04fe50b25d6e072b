import pytest
import torch

from ppmodels.nn.denoiser import MLPDenoiser, TimeEmbedding
from tests.ppmodels.nn.networks import randomised


def test_embedding_tells_times_apart():
    embedding = TimeEmbedding(32)
    told = embedding(torch.arange(0, 1001, 10)).detach()
    assert told.shape == (101, 32)
    assert float(torch.pdist(told).min()) > 1e-3


def test_scale_stretches_time():
    embedding, stretched = TimeEmbedding(32), TimeEmbedding(32, scale=1000.0)
    stretched.load_state_dict(embedding.state_dict())
    t = torch.tensor([0.1, 0.5])
    torch.testing.assert_close(stretched(t), embedding(1000 * t), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(4,), (3, 4)])
def test_shapes_and_the_zero_start(shape):
    network = MLPDenoiser(3, 15, 2)
    x, t = torch.randn(*shape, 3), torch.ones(shape)
    assert torch.equal(network(x, t), torch.zeros(*shape, 3))
    assert bool(randomised(network)(x, t).all())


def test_rows_are_independent_and_time_matters():
    network = randomised(MLPDenoiser(3, 16, 2))
    x, t = torch.randn(5, 3), torch.arange(5)
    torch.testing.assert_close(network(x, t)[2:3], network(x[2:3], t[2:3]))
    assert not torch.allclose(network(x, t), network(x, t + 100))


def test_omitted_label_is_the_null_label():
    network = randomised(MLPDenoiser(3, 16, 2, labels=4))
    x, t = torch.randn(5, 3), torch.ones(5)
    assert network.null_label == 4
    torch.testing.assert_close(network(x, t), network(x, t, torch.full((5,), 4)))
    assert not torch.allclose(network(x, t), network(x, t, torch.zeros(5, dtype=torch.long)))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: MLPDenoiser(2)(torch.zeros(3, 4), torch.zeros(3)), r"x must be \(..., 2\)"),
        (lambda: MLPDenoiser(2)(torch.zeros(3, 2), torch.zeros(3), torch.zeros(3).long()), "without labels"),
        (
            lambda: MLPDenoiser(2, labels=2)(torch.zeros(3, 2), torch.zeros(3), torch.full((3,), 3)),
            "labels lie between 0 and 2",
        ),
        (lambda: TimeEmbedding(7), "width must be even"),
    ],
)
def test_bad_input_gets_one_clear_line(call, says):
    with pytest.raises(ValueError, match=says):
        call()
