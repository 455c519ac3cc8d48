"""One device for a process, and which of several processes it is."""

import pytest
import torch

from mm1.devices import choose_device
from mm1.errors import UserError
from mm1.ranks import is_first_rank, local_rank, own_rank, world_size
from mm1.recipe import TrainRecipe
from mm1.train.capabilities import autocast_dtype


@pytest.fixture
def four_gpus(monkeypatch):
    """A machine with GPUs, as far as the choice can tell; this process is the third of four."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.empty", lambda *size, device: None)
    for name, value in {"RANK": "6", "LOCAL_RANK": "2", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("name", "chosen"), [("auto", "cuda:2"), ("cuda", "cuda:2"), ("cuda:1", "cuda:1"), ("cpu", "cpu")]
)
def test_every_rank_has_its_own_gpu(four_gpus, name, chosen):
    assert choose_device(name, "device") == torch.device(chosen)
    assert (own_rank(), local_rank(), world_size(), is_first_rank()) == (6, 2, 8, False)


def test_auto_is_apple_s_gpu_where_there_is_one(monkeypatch):
    """As far as the choice can tell: nothing was ever computed there."""
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    monkeypatch.setattr("torch.empty", lambda *size, device: None)
    assert choose_device("auto", "device") == torch.device("mps")
    assert autocast_dtype(TrainRecipe(), torch.device("mps")) is None


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_device("auto", "device") == torch.device("cpu")


@pytest.mark.parametrize("name", ["abacus", "cpu:one", "cuda:99"])
def test_a_device_that_is_not_there_is_named(name):
    with pytest.raises(UserError, match=rf"^train\.device: '{name}' can't be used here \(.+\): set it to cpu"):
        choose_device(name, "train.device")


def test_a_process_alone_is_the_first(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (own_rank(), local_rank(), world_size(), is_first_rank()) == (0, 0, 1, True)
