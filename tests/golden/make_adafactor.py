#!/usr/bin/env python3
"""Makes adafactor.safetensors: what Hugging Face's Adafactor does to given values under given gradients.

Run with the project's Python: .deps/bin/python tests/golden/make_adafactor.py
Its options match ours: decay 1 - t^-0.8, clip 1.0, parameter scaling, eps 1e-30 and 1e-3, no momentum. It factors every
matrix, so the test lets ours do the same.
"""
import pathlib

import torch
from safetensors.torch import save_file
from transformers.optimization import Adafactor

STEPS = 15
LEARNING_RATE = 0.05


def trajectory(shape, generator):
    value = torch.nn.Parameter(torch.randn(shape, generator=generator) * 0.2)
    initial = value.detach().clone()
    optimizer = Adafactor([value], lr=LEARNING_RATE, eps=(1e-30, 1e-3), clip_threshold=1.0, decay_rate=-0.8,
                          beta1=None, weight_decay=0.0, scale_parameter=True, relative_step=False, warmup_init=False)
    gradients = []
    for step in range(STEPS):
        value.grad = torch.randn(shape, generator=generator) * (4.0 if step % 4 == 3 else 0.02)
        gradients.append(value.grad.clone())
        optimizer.step()
    return initial, torch.stack(gradients), value.detach()


def main():
    generator = torch.Generator().manual_seed(20)
    tensors = {}
    for name, shape in {"matrix": (24, 16), "wide": (5, 70), "vector": (37,)}.items():
        initial, gradients, final = trajectory(shape, generator)
        tensors |= {f"{name}.initial": initial, f"{name}.gradients": gradients, f"{name}.final": final}
    path = pathlib.Path(__file__).with_name("adafactor.safetensors")
    save_file(tensors, path, metadata={"steps": str(STEPS), "learning_rate": str(LEARNING_RATE)})


if __name__ == "__main__":
    main()
