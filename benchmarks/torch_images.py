"""The same image network in PyTorch: pre-activation, channels last, bfloat16 where the device has it."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """x + F(x), or S x + F(x) where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first, self.second = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.down = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.across = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        changes = stride != 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.across(F.relu(self.second(self.down(F.relu(self.first(x))))))
        return self.shortcut(x) + branch


class ResNet(nn.Module):
    """ResNet-(6n + 2) for 32 x 32 images, ten classes."""

    def __init__(self, blocks: int, width: int = 16):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False)]
        before = width
        for stage in range(3):
            after = width * 2**stage
            for index in range(blocks):
                layers.append(Block(before, after, 2 if stage and not index else 1))
                before = after
        self.body = nn.Sequential(*layers, nn.BatchNorm2d(before), nn.ReLU())
        self.head = nn.Linear(before, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


def images_per_second(blocks: int, width: int, batch: int, steps: int, compiled: bool) -> float:
    """Training throughput with SGD with momentum on images that are on the device already, warmed up."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    network = ResNet(blocks, width).to(device, memory_format=torch.channels_last)
    descent = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    x = torch.randn(batch, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    y = torch.randint(10, (batch,), device=device)
    forward = torch.compile(network, mode="max-autotune-no-cudagraphs") if compiled else network

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = F.cross_entropy(forward(x), y)
        descent.zero_grad(set_to_none=True)
        loss.backward()
        descent.step()

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    for _ in range(max(3, steps // 5)):
        step()
    wait()
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    wait()
    return batch * steps / (time.perf_counter() - begun)
