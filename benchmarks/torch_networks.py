"""The same network in eager PyTorch, twice: as it is usually written, and with all layers in one tensor."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """z + alpha/(L M) U tanh(W z + b)."""

    def __init__(self, state: int, width: int, scale: float):
        super().__init__()
        self.inner = nn.Linear(state, width)
        self.outer = nn.Linear(width, state, bias=False)
        self.scale = scale

    def forward(self, z: Tensor) -> Tensor:
        return z + self.scale * self.outer(torch.tanh(self.inner(z)))


class PlainNet(nn.Module):
    """One module per block: how such a network is usually written."""

    def __init__(self, inputs: int, depth: int, width: int, head_width: int, alpha: float, beta: float):
        super().__init__()
        self.blocks = nn.ModuleList(Block(inputs, width, alpha / (depth * width)) for _ in range(depth))
        self.inner = nn.Linear(inputs, head_width)
        self.outer = nn.Linear(head_width, 1, bias=False)
        self.scale = beta / head_width
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def forward(self, z: Tensor) -> Tensor:
        for block in self.blocks:
            z = block(z)
        return self.scale * self.outer(torch.tanh(self.inner(z)))


class StackedNet(nn.Module):
    """All layers in one tensor per kind of weight: the fastest way in eager PyTorch that was found."""

    def __init__(self, inputs: int, depth: int, width: int, head_width: int, alpha: float, beta: float):
        super().__init__()
        self.u = nn.Parameter(torch.randn(depth, width, inputs))
        self.w = nn.Parameter(torch.randn(depth, inputs, width))
        self.b = nn.Parameter(torch.randn(depth, width))
        self.head_a = nn.Parameter(torch.randn(head_width, 1))
        self.head_w = nn.Parameter(torch.randn(inputs, head_width))
        self.head_b = nn.Parameter(torch.randn(head_width))
        self.scales = alpha / (depth * width), beta / head_width

    def forward(self, z: Tensor) -> Tensor:
        residual, output = self.scales
        for u, w, b in zip(self.u.unbind(), self.w.unbind(), self.b.unbind(), strict=True):
            z = z + residual * (torch.tanh(torch.addmm(b, z, w)) @ u)
        return output * (torch.tanh(torch.addmm(self.head_b, z, self.head_w)) @ self.head_a)
