"""`performer` against its definition (Choromanski et al. 2020, arXiv 2009.14794; docs/architectures.md) with kernels as
whole matrices of queries by keys, without chunks and sums over keys, in float64: logits within 1e-4, loss within 1e-5
per token, with weights and random features moved both ways."""

import torch
from backbone_model import Backbone, batch, main

FEATURES, STABILISER = 256, 1e-6


class Performer(Backbone):
    def declare_mixer(self, prefix, is_decoder, layer):
        weights = self.declare_attention(f"{prefix}.SelfAttention")
        if layer == 0:  # the marginal distribution of rows that are orthogonal in blocks
            weights[f"{prefix}.random_features.rows"] = ((FEATURES, self.shape["d_kv"]), 1.0)
        return weights

    def features(self, x, rows):
        if self.options["kernel"] == "relu":
            return (x @ rows.T).relu()
        return (x @ rows.T - x.square().sum(-1, keepdim=True) / 2).exp()

    def mixer(self, x, prefix, keep, is_decoder):
        heads, depth = self.shape["heads"], self.shape["d_kv"]
        rows = self.w[f"{'decoder' if is_decoder else 'encoder'}.block.0.layer.0.random_features.rows"]
        q, k, v = ((x @ self.w[f"{prefix}.SelfAttention.{name}.weight"].T).unflatten(-1, (heads, depth)).transpose(1, 2)
                   for name in "qkv")
        of_q, of_k = self.features(q * depth ** 0.25, rows), self.features(k / depth ** 0.25, rows)
        if self.options["kernel"] == "softmax":
            of_q = of_q / of_q.amax(-1, keepdim=True)
        kernel = (of_q + STABILISER) @ (of_k + STABILISER).transpose(-1, -2) * keep[:, None, None, :]
        if is_decoder:
            kernel = kernel.tril()
        mixed = kernel / kernel.sum(-1, keepdim=True) @ v
        return mixed.transpose(1, 2).flatten(2) @ self.w[f"{prefix}.SelfAttention.o.weight"].T

    def stack(self, name, x, keep, memory=None, memory_keep=None):
        position, i = torch.arange(x.shape[1])[:, None], torch.arange(0, x.shape[2], 2)
        angle = position.double() / 10000 ** (i.double() / x.shape[2])
        x = x.clone()
        x[:, :, 0::2] += angle.sin()
        x[:, :, 1::2] += angle.cos()
        return super().stack(name, x, keep, memory, memory_keep)


if __name__ == "__main__":
    # 151 targets are three chunks, of which the last is not full.
    main([Performer("performer", {"kernel": kernel, "redraw_steps": 0}) for kernel in ("softmax", "relu")],
         batch(inputs_length=180, targets_length=151))
