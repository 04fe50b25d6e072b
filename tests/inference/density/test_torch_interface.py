"""Which names of torch that are not public the density relies on, and for which versions they are known."""

import importlib
import inspect

import pytest
import torch

KNOWN = [(2, minor) for minor in range(6, 14)]  # versions of torch that have these names
NAMES = [
    ("torch.fx.experimental.proxy_tensor", "make_fx", {"decomposition_table", "tracing_mode"}),
    ("torch.fx.passes.shape_prop", "ShapeProp", set()),
    ("torch._functorch.compile_utils", "fx_graph_cse", set()),
    ("torch._subclasses.fake_tensor", "FakeTensorMode", {"allow_non_fake_inputs"}),
    ("torch._inductor.compile_fx", "compile_fx_inner", set()),
    ("torch._inductor.decomposition", "select_decomp_table", set()),
    ("torch._inductor.virtualized", "V", set()),
    ("torch.utils._pytree", "register_pytree_node", {"serialized_type_name"}),
]
OPTIONS = ["compile_threads", "cpp.threads", "fx_graph_cache"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, at its first import
@pytest.mark.parametrize(("module", "name", "options"), NAMES, ids=[name for _, name, _ in NAMES])
def test_torch_still_has(module, name, options):
    found = getattr(importlib.import_module(module), name, None)
    told = f"torch {torch.__version__} has no {module}.{name}, on which inference.density stands"
    assert found is not None, told
    if options:
        missing = options - set(inspect.signature(found).parameters)
        assert not missing, f"torch {torch.__version__}: {module}.{name} takes no {', '.join(missing)}"


def test_inductor_still_has_its_options():
    config = importlib.import_module("torch._inductor.config")
    for option in OPTIONS:
        at = config
        for part in option.split("."):
            assert hasattr(at, part), f"torch {torch.__version__} has no inductor option {option}"
            at = getattr(at, part)


def test_this_version_is_a_known_one():
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    assert version in KNOWN, (
        f"torch {torch.__version__} is new to inference.density: if the tests of this folder pass, add it to KNOWN"
    )
