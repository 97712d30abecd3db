"""`albert` against its definition (Lan et al. 2019, arXiv 1909.11942; docs/architectures.md): one block for all layers of
a stack and a factorised embedding, in float64: logits within 1e-4, loss within 1e-5 per token, with weights moved both
ways."""

from backbone_model import Backbone, batch, main


class Albert(Backbone):
    def width(self):
        """Of the table's rows: 0 is no factorisation."""
        factor = self.options["factor"]
        return min(128, self.shape["d_model"] // 2) if factor == -1 else factor or self.shape["d_model"]

    def block(self, stack, layer):
        return f"{stack}.block.0.layer"

    def declare_embedding(self):
        d, v, e = self.shape["d_model"], self.shape["vocabulary"], self.width()
        weights = {"shared.weight": ((v, e), 1.0)}
        return weights | ({"shared_projection.weight": ((e, d), e ** -0.5)} if self.options["factor"] else {})

    def declare_head(self):
        d, v = self.shape["d_model"], self.shape["vocabulary"]
        return {"lm_head.weight": ((v, d), d ** -0.5)} if self.options["untied_softmax"] else {}

    def table(self):
        """All embeddings in full width."""
        factors = self.w["shared.weight"]
        return factors @ self.w["shared_projection.weight"] if self.options["factor"] else factors

    def embed(self, ids):
        return self.table()[ids]

    def head(self, x):
        if self.options["untied_softmax"]:
            return x @ self.w["lm_head.weight"].T
        return x @ self.table().T * self.shape["d_model"] ** -0.5


if __name__ == "__main__":
    cases = [(-1, False), (7, True), (0, False), (0, True)]
    main([Albert("albert", {"factor": factor, "untied_softmax": untied}) for factor, untied in cases],
         batch(inputs_length=40, targets_length=33))
