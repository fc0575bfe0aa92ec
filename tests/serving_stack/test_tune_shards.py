"""Weights that are spread over processes come back whole."""

import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from torch import distributed  # noqa: E402
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torch.distributed.tensor import DTensor, Shard, distribute_tensor  # noqa: E402

from serving_stack.tune_shards import like, whole  # noqa: E402


@pytest.fixture
def mesh(tmp_path):
    """A group of one process: what is spread has the type that many would have."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def test_spread_and_whole_again(mesh):
    value = torch.arange(12.0).reshape(4, 3)
    spread = distribute_tensor(torch.zeros(4, 3), mesh, [Shard(0)])
    again = like(value, spread)
    assert isinstance(again, DTensor)
    assert again.placements == spread.placements
    assert torch.equal(whole(again), value)
    assert not isinstance(like(torch.tensor(5.0), spread), DTensor), "an optimizer's step counter is one number everywhere"


def test_plain_tensors_pass_through():
    value = torch.ones(3)
    assert whole(value) is value
    assert torch.equal(like(value, torch.zeros(3)), value)
