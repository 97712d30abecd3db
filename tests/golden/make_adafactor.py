#!/usr/bin/env python3
"""Makes adafactor.safetensors and adafactor_steps.safetensors: what Hugging Face's Adafactor does to given values under
given gradients, at the end and step by step.

Run with the project's Python: .deps/bin/python tests/golden/make_adafactor.py
Its options match ours: decay 1 - t^-0.8, clip 1.0, parameter scaling, eps 1e-30 and 1e-3, no momentum. It factors every
matrix: for the small ones of the first file the test lets ours do the same; those of the second ours factors by itself.
"""
import pathlib

import numpy as np
import torch
from safetensors.torch import save_file
from transformers.optimization import Adafactor

STEPS = 15
LEARNING_RATE = 0.05
SHAPES = {"vector": (1000,), "square": (128, 128), "wide": (130, 300), "tall": (515, 129)}


def adafactor(value):
    return Adafactor([value], lr=LEARNING_RATE, eps=(1e-30, 1e-3), clip_threshold=1.0, decay_rate=-0.8, beta1=None,
                     weight_decay=0.0, scale_parameter=True, relative_step=False, warmup_init=False)


def trajectory(shape, generator):
    value = torch.nn.Parameter(torch.randn(shape, generator=generator) * 0.2)
    initial = value.detach().clone()
    optimizer = adafactor(value)
    gradients = []
    for step in range(STEPS):
        value.grad = torch.randn(shape, generator=generator) * (4.0 if step % 4 == 3 else 0.02)
        gradients.append(value.grad.clone())
        optimizer.step()
    return initial, torch.stack(gradients), value.detach()


def numbers(count, seed):
    """Multiples of 2^-23 in [-1, 1) that any language computes alike, so that the file need not hold them."""
    h = np.arange(count, dtype=np.uint32) * np.uint32(2654435761) + np.uint32((seed * 40503 + 12345) % 2**32)
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return torch.from_numpy((h >> np.uint32(8)).astype(np.float32) / np.float32(2**23) - np.float32(1))


def steps(shape):
    """Every 31st value after each step. Gradients differ in size from row to row and from step to step."""
    rows = shape[0] if len(shape) == 2 else 1
    count = int(np.prod(shape))
    row_scales = torch.tensor([2.0 ** (row % 5 - 2) for row in range(rows)]).unsqueeze(1)
    value = torch.nn.Parameter((numbers(count, 0) * 0.5).view(shape))
    optimizer = adafactor(value)
    after = []
    for step in range(1, STEPS + 1):
        scale = 4.0 if step % 4 == 3 else 1 / 64
        value.grad = (numbers(count, step).view(rows, -1) * row_scales * scale).view(shape)
        optimizer.step()
        after.append(value.detach().flatten()[::31].clone())
    return torch.stack(after)


def main():
    folder = pathlib.Path(__file__).parent
    metadata = {"steps": str(STEPS), "learning_rate": str(LEARNING_RATE)}
    generator = torch.Generator().manual_seed(20)
    tensors = {}
    for name, shape in {"matrix": (24, 16), "wide": (5, 70), "vector": (37,)}.items():
        initial, gradients, final = trajectory(shape, generator)
        tensors |= {f"{name}.initial": initial, f"{name}.gradients": gradients, f"{name}.final": final}
    save_file(tensors, folder / "adafactor.safetensors", metadata=metadata)
    save_file({name: steps(shape) for name, shape in SHAPES.items()}, folder / "adafactor_steps.safetensors",
              metadata=metadata)


if __name__ == "__main__":
    main()
