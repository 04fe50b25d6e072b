import torch

from ppmodels.nn.parameter_groups import parameter_groups, parameter_options
from ppmodels.nn.ssm_stack import SSMStack
from ppmodels.nn.transformer import TransformerLM


def test_every_parameter_once_and_slow_ones_apart():
    network = SSMStack(5, 5, width=8, layers=2, tokens=True, states=8)
    slow, plain, decayed = parameter_groups(network, lr=0.01, weight_decay=0.05)
    ids = [id(p) for group in (slow, plain, decayed) for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in network.parameters())
    assert (slow["lr"], slow["weight_decay"]) == (1e-3, 0.0)
    assert id(network.layers[0].ssm.log_dt) in {id(p) for p in slow["params"]}
    assert id(network.encoder.weight) in {id(p) for p in plain["params"]}
    assert id(network.head.weight) in {id(p) for p in decayed["params"]}
    torch.optim.AdamW([slow, plain, decayed]).step()


def test_shared_weights_once():
    network = TransformerLM(5, width=8, layers=1, heads=2)
    groups = parameter_groups(network)
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_options_by_name_are_the_groups():
    network = SSMStack(5, 5, width=8, layers=2, tokens=True, states=8)
    groups = parameter_groups(network, lr=0.01, weight_decay=0.05)
    options = parameter_options(network, "network$$$", lr=0.01, weight_decay=0.05)
    told = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        assert tuple(options(f"network$$${name}").values()) == told[id(parameter)], name
    assert options("another") == {"lr": 0.01, "weight_decay": 0.0}
