"""`lconv` and `dconv` against their definitions (Wu et al. 2019, arXiv 1901.10430; docs/architectures.md), one tap at a
time in float64: logits within 1e-4, loss within 1e-5 per token, with weights moved both ways."""

import math

import torch
from backbone_model import Backbone, batch, main

WIDTH = 9


class Convolution(Backbone):
    """Input GLU, padding zeroed, a convolution whose kernels `kernel` gives, pointwise, output."""

    module = "LightConvolution"

    def kernels(self):
        return self.options["heads"] or self.shape["d_model"]

    def declare_mixer(self, prefix, is_decoder, layer):
        d = self.shape["d_model"]
        square = {f"{prefix}.{self.module}.{name}.weight": ((d, d), d ** -0.5) for name in ("pointwise", "output")}
        return square | {f"{prefix}.{self.module}.input.weight": ((2 * d, d), d ** -0.5),
                         f"{prefix}.{self.module}.kernel.weight": self.declare_kernel()}

    def declare_kernel(self):
        return (self.kernels(), WIDTH), WIDTH ** -0.5

    def logits_of_kernel(self, prefix, gated, k):
        """The WIDTH values, before the softmax, of kernel k at a position whose gated values are given."""
        return self.w[f"{prefix}.{self.module}.kernel.weight"][k].tolist()

    def mixer(self, x, prefix, keep, is_decoder):
        d = self.shape["d_model"]
        halves = x @ self.w[f"{prefix}.{self.module}.input.weight"].T
        gated = halves[..., :d] * torch.sigmoid(halves[..., d:])
        gated = torch.where(keep[..., None], gated, torch.zeros_like(gated))
        mixed = torch.stack([self.convolve(example, prefix, is_decoder) for example in gated])
        pointwise = mixed @ self.w[f"{prefix}.{self.module}.pointwise.weight"].T
        return pointwise @ self.w[f"{prefix}.{self.module}.output.weight"].T

    def convolve(self, gated, prefix, is_decoder):
        length, d = gated.shape
        first = -(WIDTH - 1) if is_decoder else -(WIDTH // 2)
        values, out = gated.tolist(), torch.zeros(length, d, dtype=torch.float64)
        for t in range(length):
            for k in range(self.kernels()):
                raw = [math.exp(v) for v in self.logits_of_kernel(prefix, gated[t], k)]
                taps = [v / sum(raw) for v in raw]
                channels = d // self.kernels()
                for c in range(k * channels, (k + 1) * channels):
                    out[t, c] = sum(taps[j] * values[t + first + j][c]
                                    for j in range(WIDTH) if 0 <= t + first + j < length)
        return out


class DynamicConvolution(Convolution):
    """Kernel k at position t: tap j is row j * kernels + k of the map, times the gated values at t."""

    module = "DynamicConvolution"

    def feed_forward_width(self):
        return max(8, 8 * math.floor(self.shape["d_ff"] / 6 / 8 + 0.5))

    def declare_kernel(self):
        return (WIDTH * self.kernels(), self.shape["d_model"]), self.shape["d_model"] ** -0.5

    def logits_of_kernel(self, prefix, gated, k):
        rows = self.w[f"{prefix}.{self.module}.kernel.weight"]
        return [(rows[j * self.kernels() + k] @ gated).item() for j in range(WIDTH)]


if __name__ == "__main__":
    main([make(name, {"heads": heads}) for name, make in (("lconv", Convolution), ("dconv", DynamicConvolution))
          for heads in (0, 4)], batch(inputs_length=21, targets_length=14))
