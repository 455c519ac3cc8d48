"""GPUs: peak, memory and links, as their makers state them.

Sources, by product: NVIDIA's datasheets "A100 Tensor Core GPU", "H100 Tensor Core GPU", "H200 Tensor Core GPU", "L40S"
and "HGX/DGX B200" (those that state figures "with sparsity" are halved here), AMD's "Instinct MI300X". Networks are
those of the makers' eight-GPU machines: DGX A100 has one 200 Gbit/s adapter for each GPU, DGX H100, H200 and
B200 one of 400 Gbit/s.
"""

from __future__ import annotations

from dataclasses import dataclass

from mm1.errors import UserError


@dataclass(frozen=True)
class GPU:
    """What one GPU can do on paper.

    Attributes:
        name: As people call it.
        peak: FLOP/s of dense bfloat16 matrix products.
        memory: Bytes.
        link: Bytes/s that it sends to the others of its machine, one way: half of the stated "bidirectional" figure.
        network: Bytes/s that it sends to other machines, one way.
        per_node: GPUs of a machine.
    """

    name: str
    peak: float
    memory: float
    link: float
    network: float
    per_node: int = 8


GPUS = {
    "a100-40": GPU("A100 SXM 40 GB", 312e12, 40e9, 300e9, 25e9),
    "a100-80": GPU("A100 SXM 80 GB", 312e12, 80e9, 300e9, 25e9),
    "h100": GPU("H100 SXM 80 GB", 989e12, 80e9, 450e9, 50e9),
    "h100-pcie": GPU("H100 PCIe 80 GB, no NVLink bridge", 756e12, 80e9, 64e9, 50e9),
    "h200": GPU("H200 SXM 141 GB", 989e12, 141e9, 450e9, 50e9),
    "b200": GPU("B200 SXM 180 GB", 2250e12, 180e9, 900e9, 50e9),
    "l40s": GPU("L40S 48 GB, PCIe", 362e12, 48e9, 32e9, 25e9),
    "mi300x": GPU("Instinct MI300X 192 GB", 1307e12, 192e9, 448e9, 50e9),
}
"""By the name that the command line takes."""

_DEVICES = {
    "A100": "a100-80",
    "H100 PCIe": "h100-pcie",
    "H100": "h100",
    "H200": "h200",
    "B200": "b200",
    "L40S": "l40s",
    "MI300X": "mi300x",
}
"""Part of the name that the driver gives a device; the first that fits counts."""


def gpu(name: str) -> GPU:
    """Return a GPU by name.

    Raises:
        UserError: If there is none of that name.
    """
    if name not in GPUS:
        raise UserError(f"GPU '{name}' is unknown: take one of {', '.join(GPUS)}")
    return GPUS[name]


def device_peak(device_name: str) -> float | None:
    """Return the peak of a device in bfloat16 FLOP/s, for the utilisation that training logs.

    Args:
        device_name: As `torch.cuda.get_device_name()` gives it.

    Returns:
        None for one that is not in the table (the H100 NVL and the GB200 have other peaks than their namesakes).
    """
    if "NVL" in device_name or "GB200" in device_name:
        return None
    return next((GPUS[name].peak for part, name in _DEVICES.items() if part in device_name), None)
