"""`glu` with every activation against its definition (Shazeer 2020, arXiv 2002.05202; docs/architectures.md), in float64:
logits within 1e-4, loss within 1e-5 per token, with weights moved both ways. t5_parity.py holds `gelu` against Hugging
Face's T5 v1.1 besides."""

import math

import torch
from backbone_model import Backbone, batch, main

ACTIVATIONS = {
    "sigmoid": torch.sigmoid,
    "gelu": lambda x: x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3))),
    "silu": lambda x: x * torch.sigmoid(x),
    "relu": torch.relu,
}


class Glu(Backbone):
    def feed_forward_width(self):
        return 8 * math.floor(self.shape["d_ff"] * 2 / 3 / 8 + 0.5)

    def declare_feed_forward(self, prefix):
        d, f = self.shape["d_model"], self.feed_forward_width()
        gates = {f"{prefix}.{name}.weight": ((f, d), d ** -0.5) for name in ("wi_0", "wi_1")}
        return gates | {f"{prefix}.wo.weight": ((d, f), f ** -0.5)}

    def declare_head(self):
        d, v = self.shape["d_model"], self.shape["vocabulary"]
        return {} if self.options["tied_embedding"] else {"lm_head.weight": ((v, d), d ** -0.5)}

    def feed_forward(self, x, prefix):
        gate, value, out = (self.w[f"{prefix}.DenseReluDense.{name}.weight"].T for name in ("wi_0", "wi_1", "wo"))
        return (ACTIVATIONS[self.options["activation"]](x @ gate) * (x @ value)) @ out

    def head(self, x):
        return super().head(x) if self.options["tied_embedding"] else x @ self.w["lm_head.weight"].T


if __name__ == "__main__":
    cases = [(name, True) for name in ACTIVATIONS] + [("sigmoid", False)]
    main([Glu("glu", {"activation": name, "tied_embedding": tied}) for name, tied in cases],
         batch(inputs_length=40, targets_length=33))
