"""`funnel` against its definition (Dai et al. 2020, arXiv 2006.03236; docs/architectures.md) with an encoder that takes
one example at a time without its padding, in float64: logits within 1e-4, loss within 1e-5 per token, with weights
moved both ways."""

import sys

import torch
from backbone_model import SHAPE, Backbone, batch, check
from backbone_reference import attention, bucket, norm, shift_right

ENCODER_LAYERS = 7
BLOCKS = [(ENCODER_LAYERS + 2 - b) // 3 for b in range(3)]


def pool(x):
    """[n, d] to [ceil(n / 2), d]: means of pairs; what has no partner stands for itself."""
    return torch.stack([x[i:i + 2].mean(0) for i in range(0, len(x), 2)])


class Funnel(Backbone):
    def __init__(self, what):
        super().__init__("funnel", {"pool": what})
        self.shape = {**SHAPE, "encoder_layers": ENCODER_LAYERS}

    def attend(self, queries, keys, prefix, positions):
        """Attention of [q, d] over [k, d]; `positions` are the queries' among the keys."""
        table = self.w["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        index = torch.tensor([[bucket(k - q, True) for k in range(len(keys))] for q in positions])
        return attention(self.w, f"{prefix}.SelfAttention", queries[None], keys[None], self.shape["heads"],
                         table[index].permute(2, 0, 1))[0]

    def attention_layer(self, x, prefix, pools):
        normed, positions = norm(x, self.w[f"{prefix}.layer_norm.weight"]), range(len(x))
        if not pools:
            return x + self.attend(normed, normed, prefix, positions)
        if self.options["pool"] == "after_attention":
            return pool(x + self.attend(normed, normed, prefix, positions))
        return pool(x) + self.attend(pool(normed), normed, prefix, positions[::2])

    def encode(self, ids):
        x, index = self.w["shared.weight"][ids], 0
        for block, layers in enumerate(BLOCKS):
            for layer in range(layers):
                name = f"encoder.block.{index}.layer"
                x = self.attention_layer(x, f"{name}.0", pools=block > 0 and layer == 0)
                x = x + self.feed_forward(norm(x, self.w[f"{name}.1.layer_norm.weight"]), f"{name}.1")
                index += 1
        return norm(x, self.w["encoder.final_layer_norm.weight"])

    def logits(self, weights, inputs, targets):
        self.w = weights
        rows = []
        for ids, prefix in zip(inputs, shift_right(targets)):
            memory = self.encode(ids[ids != 0])[None]
            assert memory.shape[1] == (ids.count_nonzero() + 3) // 4
            everything, all_memory = torch.ones(1, len(prefix)).bool(), torch.ones(1, memory.shape[1]).bool()
            rows.append(self.stack("decoder", weights["shared.weight"][prefix][None], everything, memory, all_memory))
        return self.head(torch.cat(rows))


if __name__ == "__main__":
    assert BLOCKS == [3, 2, 2]
    # 181 and 120 unpadded inputs, then 182 and 121: groups of four that are full, and such that are not.
    results = [check(Funnel(what), batch(length, 50)) for what in ("query", "after_attention") for length in (181, 182)]
    sys.exit(0 if all(results) else 1)
