"""`mos` against its definition (Yang et al. 2018, arXiv 1711.03953, equation 2; docs/architectures.md), as a sum of
probabilities in float64: log-probabilities within 1e-4, loss within 1e-5 per token, with weights moved both ways."""

import torch
from backbone_model import Backbone, batch, main


class MixtureOfSoftmaxes(Backbone):
    def declare_head(self):
        d, k = self.shape["d_model"], self.options["softmaxes"]
        return {"output.latent.weight": ((k * d, d), d ** -0.5), "output.prior.weight": ((k, d), d ** -0.5)}

    def head(self, x):
        d = self.shape["d_model"]
        prior = (x @ self.w["output.prior.weight"].T).softmax(-1)
        p = 0
        for k in range(self.options["softmaxes"]):
            context = torch.tanh(x @ self.w["output.latent.weight"][k * d:(k + 1) * d].T)
            p = p + prior[..., k:k + 1] * (context @ self.w["shared.weight"].T * d ** -0.5).softmax(-1)
        return p.log()


if __name__ == "__main__":
    main([MixtureOfSoftmaxes("mos", {"softmaxes": k}) for k in (15, 4, 1)], batch(inputs_length=40, targets_length=33))
