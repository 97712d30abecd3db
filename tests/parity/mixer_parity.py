"""`mixer` against its definition (Tolstikhin et al. 2021, arXiv 2105.01601, equation 1; docs/architectures.md), with
inputs padded to the full length, in float64: logits within 1e-4, loss within 1e-5 per token, with weights moved both
ways."""

import math

import torch
from backbone_model import Backbone, batch, main


def gelu(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


class Mixer(Backbone):
    def mixes(self, is_decoder):
        return not is_decoder or self.options["decoder"] == "causal_mixing"

    def length(self, is_decoder):
        return self.options["target_length" if is_decoder else "input_length"]

    def declare_mixer(self, prefix, is_decoder, layer):
        if not self.mixes(is_decoder):
            return super().declare_mixer(prefix, is_decoder, layer)
        length, hidden = self.length(is_decoder), self.shape["d_model"] // 2
        return {f"{prefix}.TokenMixing.wi.weight": ((hidden, length), length ** -0.5),
                f"{prefix}.TokenMixing.wo.weight": ((length, hidden), hidden ** -0.5)}

    def mixer(self, x, prefix, keep, is_decoder):
        if not self.mixes(is_decoder):
            return super().mixer(x, prefix, keep, is_decoder)
        length = self.length(is_decoder)
        wi, wo = (self.w[f"{prefix}.TokenMixing.{name}.weight"].clone() for name in ("wi", "wo"))
        if is_decoder:
            hidden = wi.shape[0]
            for j in range(hidden):
                place = math.floor(j * length / hidden)
                wi[j, place + 1:] = 0
                wo[:place, j] = 0
        padded = torch.zeros(x.shape[0], length, x.shape[2], dtype=x.dtype)
        padded[:, :x.shape[1]] = x * keep[..., None]
        mixed = torch.einsum("th,bhd->btd", wo, gelu(torch.einsum("ht,btd->bhd", wi, padded)))
        return mixed[:, :x.shape[1]]


if __name__ == "__main__":
    lengths = [("attention", 30, 17), ("attention", 37, 20), ("causal_mixing", 30, 17), ("causal_mixing", 37, 20),
               ("causal_mixing", 30, 100)]  # also longer than what comes, and with more positions than hidden units
    main([Mixer("mixer", {"decoder": decoder, "input_length": inputs, "target_length": targets})
          for decoder, inputs, targets in lengths], batch(inputs_length=30, targets_length=17))
