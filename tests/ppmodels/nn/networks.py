"""Networks as tests of several layers want them."""

import torch


def randomised(network):
    """The network with all its weights drawn: layers that begin at zero would hide what stands before them."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return network
