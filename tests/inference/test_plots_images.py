"""Pictures of images and codes say what they show."""

import matplotlib as mpl
import pytest
import torch

from inference.plots.images import code_use, images, latent_map


@pytest.fixture(autouse=True)
def _no_screen():
    mpl.use("Agg")


def test_a_grid_has_an_axis_an_image_and_names_its_rows(tmp_path):
    figure = images([torch.rand(4, 6), torch.rand(3, 6)], (2, 3), ["digit", "told"], "both")
    assert len(figure.axes) == 7
    assert [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()] == ["digit", "told"]
    assert figure.axes[0].images[0].get_array().shape == (2, 3)
    assert len({axis.images[0].get_clim() for axis in figure.axes}) == 1  # one grey scale
    figure.savefig(tmp_path / "grid.png")
    with pytest.raises(ValueError, match=r"row 1 must be \(images, 6\); it is \(3, 5\)"):
        images([torch.rand(4, 6), torch.rand(3, 5)], (2, 3))


def test_a_map_has_a_legend_of_its_labels(tmp_path):
    figure = latent_map(torch.randn(30, 3), torch.arange(30) % 3, "codes")
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["0", "1", "2"]
    assert axis.get_xlabel() == "latent 0 (prior sds)"
    assert sum(len(c.get_offsets()) for c in axis.collections) == 30
    figure.savefig(tmp_path / "map.png")
    assert latent_map(torch.randn(5, 2)).axes[0].get_legend() is None
    with pytest.raises(ValueError, match="at least two coordinates"):
        latent_map(torch.randn(5, 1))


def test_the_use_of_codes_is_counted(tmp_path):
    figure = code_use(torch.tensor([[0, 0], [0, 3]]), 4)
    assert [bar.get_height() for bar in figure.axes[0].patches] == [75.0, 25.0, 0.0, 0.0]
    assert figure.axes[0].get_title() == "2 of 4 codes in use, perplexity 1.8"
    figure.savefig(tmp_path / "use.png")
