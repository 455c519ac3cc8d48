"""GPUs: peak, memory and links, as stated by their makers.

Sources, by product: NVIDIA's datasheets "A100 Tensor Core GPU", "H100 Tensor Core GPU", "H200 Tensor Core GPU", "L40S"
and "HGX/DGX B200" (figures stated "with sparsity" are halved here), its paper "Ada GPU Architecture" (RTX 4090:
bfloat16 with float32 sums), AMD's "Instinct MI300X". Networks are those of the makers' eight-GPU machines: DGX A100 has
one 200 Gbit/s adapter per GPU, DGX H100, H200 and B200 have one of 400 Gbit/s.
"""

from __future__ import annotations

from dataclasses import dataclass

from mm1.errors import UserError
from mm1.nearest import did_you_mean


@dataclass(frozen=True)
class GPU:
    """The stated figures of one GPU.

    Attributes:
        name: The usual name.
        peak: FLOP/s of dense bfloat16 matrix products.
        memory: Memory in bytes.
        link: Bytes/s to the other GPUs of the machine, one way: half of the stated "bidirectional" figure.
        network: Bytes/s to other machines, one way.
        per_node: GPUs per machine.
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
    "rtx-4090": GPU("GeForce RTX 4090 24 GB, PCIe", 165e12, 24e9, 32e9, 25e9),
    "mi300x": GPU("Instinct MI300X 192 GB", 1307e12, 192e9, 448e9, 50e9),
}
"""GPUs by their names on the command line."""

_DEVICES = {
    "A100": "a100-80",
    "H100 PCIe": "h100-pcie",
    "H100": "h100",
    "H200": "h200",
    "B200": "b200",
    "L40S": "l40s",
    "RTX 4090": "rtx-4090",
    "MI300X": "mi300x",
}
"""Parts of device names as the driver gives them; the first match counts."""


def gpu(name: str) -> GPU:
    """Return a GPU by name.

    Raises:
        UserError: If the name is unknown.
    """
    if name not in GPUS:
        raise UserError(f"GPU '{name}' is unknown: {did_you_mean(name, GPUS)}")
    return GPUS[name]


def device_peak(device_name: str) -> float | None:
    """Return a device's peak in bfloat16 FLOP/s, for the utilisation in the training log.

    Args:
        device_name: The name from `torch.cuda.get_device_name()`.

    Returns:
        The peak; None if the table lacks the device (the H100 NVL and the GB200 have other peaks than their namesakes).
    """
    if "NVL" in device_name or "GB200" in device_name:
        return None
    return next((GPUS[name].peak for part, name in _DEVICES.items() if part in device_name), None)
