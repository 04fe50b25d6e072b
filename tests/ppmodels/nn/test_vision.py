import pytest
import torch
from torch.nn import functional

from ppmodels.nn.vision import MaskedAutoencoder, VisionTransformer, patchify, unpatchify

SHAPE = (1, 8, 8)


@pytest.mark.parametrize(("shape", "size"), [((1, 8, 8), 2), ((3, 6, 12), 3), ((2, 5, 5), 5), ((1, 4, 4), 1)])
def test_patches_and_back(shape, size):
    images = torch.randn(2, *shape)
    patches = patchify(images, size)
    assert patches.shape == (2, shape[1] * shape[2] // size**2, shape[0] * size**2)
    assert torch.equal(unpatchify(patches, size, shape), images)
    assert torch.equal(patches[:, 0].unflatten(-1, (shape[0], size, size)), images[:, :, :size, :size])
    if shape[2] > size:  # row by row
        assert torch.equal(patches[:, 1].unflatten(-1, (shape[0], size, size)), images[:, :, :size, size : 2 * size])


def test_uneven_images():
    with pytest.raises(ValueError, match="does not divide"):
        patchify(torch.zeros(1, 1, 8, 9), 2)
    with pytest.raises(ValueError, match="expected images of shape"):
        VisionTransformer(SHAPE, 2, 3, 16, 1)(torch.zeros(1, 1, 8, 10))


def bars(rows, generator):
    """Horizontal or vertical stripes, at a random phase."""
    kind = torch.randint(2, (rows,), generator=generator)
    phase = torch.randint(4, (rows, 1), generator=generator)
    wave = (((torch.arange(8) + phase) // 2) % 2).double()  # (rows, 8)
    flat = wave[:, None].expand(-1, 8, -1)
    return torch.where(kind[:, None, None] == 1, flat, flat.mT)[:, None].float(), kind


def train(module, loss, steps, lr=3e-3):
    optimiser = torch.optim.Adam(module.parameters(), lr)
    for _ in range(steps):
        optimiser.zero_grad()
        value = loss()
        value.backward()
        optimiser.step()


def test_tells_stripes_apart():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    network = VisionTransformer(SHAPE, 2, 2, 16, 1)
    train(network, lambda: functional.cross_entropy(*(lambda x, y: (network(x), y))(*bars(32, generator))), 120)
    images, kind = bars(200, generator)
    assert (network(images).argmax(-1) == kind).double().mean() > 0.98


def test_hidden_patches_are_filled_in():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    network = MaskedAutoencoder(VisionTransformer(SHAPE, 2, 2, 16, 1), hidden=0.75)
    images, _ = bars(256, generator)
    patches, mask = network(images, generator)
    assert patches.shape == (256, 16, 4)
    assert (mask.sum(-1) == 12).all()
    start = network.loss(images, generator).item()
    train(network, lambda: network.loss(bars(64, generator)[0], generator), 500, 5e-3)
    # The mean picture leaves a variance of 1/4; four patches of stripes say the rest.
    end = network.loss(images, generator).item()
    assert end < 0.1 < 0.25 < start


@torch.no_grad()
def test_hidden_patches_are_not_seen():
    torch.manual_seed(0)
    network = MaskedAutoencoder(VisionTransformer(SHAPE, 2, 2, 16, 1)).eval()
    images = torch.randn(2, *SHAPE)
    patches, mask = network(images, torch.Generator().manual_seed(3))
    pieces = patchify(images, 2)
    pieces[mask] = 7.0
    again, same = network(unpatchify(pieces, 2, SHAPE), torch.Generator().manual_seed(3))
    assert torch.equal(mask, same)
    assert torch.equal(patches, again)


def test_hidden_share():
    with pytest.raises(ValueError, match="hidden share"):
        MaskedAutoencoder(VisionTransformer(SHAPE, 2, 2, 16, 1), hidden=1.0)
