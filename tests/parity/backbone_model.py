"""The shared backbone as one class with hooks for what an architecture changes, on the equations of backbone_reference.

An architecture declares its parameters as names with shape and standard deviation, so that names, shapes and
initialisation are compared too."""

import json
import math
import pathlib
import subprocess
import sys
import tempfile

import torch
from backbone_reference import BUCKETS, attention, compare, norm, position_bias, shift_right
from safetensors.torch import load_file

SHAPE = dict(encoder_layers=3, decoder_layers=2, d_model=24, d_ff=96, heads=3, d_kv=7, vocabulary=90)


class Backbone:
    """T5 v1.0; subclasses override what their architecture changes. Evaluates in float64."""

    def __init__(self, architecture, options):
        self.architecture, self.options, self.shape = architecture, options, SHAPE
        self.w = {}

    # Declarations: name -> (shape, standard deviation), 0 for norms, which start at 1.
    def declare(self):
        d = self.shape["d_model"]
        weights = self.declare_embedding()
        for stack in ("encoder", "decoder"):
            is_decoder = stack == "decoder"
            for layer in range(self.shape[f"{stack}_layers"]):
                block = self.block(stack, layer)
                weights |= self.declare_mixer(f"{block}.0", is_decoder, layer)
                if is_decoder:
                    weights |= self.declare_attention(f"{block}.1.EncDecAttention")
                weights |= self.declare_feed_forward(f"{block}.{2 if is_decoder else 1}.DenseReluDense")
                weights |= {f"{block}.{n}.layer_norm.weight": ((d,), 0) for n in range(3 if is_decoder else 2)}
            weights[f"{stack}.final_layer_norm.weight"] = ((d,), 0)
        return weights | self.declare_head()

    def declare_embedding(self):
        return {"shared.weight": ((self.shape["vocabulary"], self.shape["d_model"]), 1.0)}

    def declare_attention(self, prefix, with_table=False):
        d, heads, depth = self.shape["d_model"], self.shape["heads"], self.shape["d_kv"]
        inner = heads * depth
        sds = {"q": (d * depth) ** -0.5, "k": d ** -0.5, "v": d ** -0.5}
        weights = {f"{prefix}.{name}.weight": ((inner, d), sd) for name, sd in sds.items()}
        weights[f"{prefix}.o.weight"] = ((d, inner), inner ** -0.5)
        if with_table:
            weights[f"{prefix}.relative_attention_bias.weight"] = ((BUCKETS, heads), d ** -0.5)
        return weights

    def declare_mixer(self, prefix, is_decoder, layer):
        return self.declare_attention(f"{prefix}.SelfAttention", with_table=layer == 0)

    def declare_feed_forward(self, prefix):
        d, f = self.shape["d_model"], self.feed_forward_width()
        return {f"{prefix}.wi.weight": ((f, d), d ** -0.5), f"{prefix}.wo.weight": ((d, f), f ** -0.5)}

    def declare_head(self):
        return {}

    def feed_forward_width(self):
        return self.shape["d_ff"]

    def block(self, stack, layer):
        return f"{stack}.block.{layer}.layer"

    # Evaluation.
    def embed(self, ids):
        return self.w["shared.weight"][ids]

    def mixer(self, x, prefix, keep, is_decoder):
        """What stands in self-attention's place, of the normed x [b, t, d]; `keep` [b, t] is false at padding."""
        stack = "decoder" if is_decoder else "encoder"
        table = self.w[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        bias = position_bias(table, x.shape[1], is_decoder)
        return attention(self.w, f"{prefix}.SelfAttention", x, x, self.shape["heads"], bias, ~keep)

    def feed_forward(self, x, prefix):
        hidden = (x @ self.w[f"{prefix}.DenseReluDense.wi.weight"].T).relu()
        return hidden @ self.w[f"{prefix}.DenseReluDense.wo.weight"].T

    def head(self, x):
        return x @ self.w["shared.weight"].T * self.shape["d_model"] ** -0.5

    def stack(self, name, x, keep, memory=None, memory_keep=None):
        def cross(y, prefix):
            return attention(self.w, f"{prefix}.EncDecAttention", y, memory, self.shape["heads"], padding=~memory_keep)

        for layer in range(self.shape[f"{name}_layers"]):
            block = self.block(name, layer)
            parts = [lambda y, prefix: self.mixer(y, prefix, keep, name == "decoder"), self.feed_forward]
            if memory is not None:
                parts.insert(1, cross)
            for n, part in enumerate(parts):
                x = x + part(norm(x, self.w[f"{block}.{n}.layer_norm.weight"]), f"{block}.{n}")
        return norm(x, self.w[f"{name}.final_layer_norm.weight"])

    def logits(self, weights, inputs, targets):
        self.w = weights
        memory = self.stack("encoder", self.embed(inputs), inputs != 0)
        everything = torch.ones_like(targets).bool()  # padding follows all targets, and nothing looks ahead
        decoded = self.stack("decoder", self.embed(shift_right(targets)), everything, memory, inputs != 0)
        return self.head(decoded)


def batch(inputs_length, targets_length):
    """With padding on both sides of the model."""
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randint(2, SHAPE["vocabulary"], (2, inputs_length), generator=generator)
    targets = torch.randint(2, SHAPE["vocabulary"], (2, targets_length), generator=generator)
    inputs[1, inputs_length * 2 // 3:] = 0
    targets[0, targets_length * 3 // 4:] = 0
    return inputs, targets


def draw(declared):
    """Norms away from 1, so that they are seen."""
    generator = torch.Generator().manual_seed(11)
    return {name: 1 + 0.2 * torch.randn(shape, generator=generator) if sd == 0 else
            sd * torch.randn(shape, generator=generator) for name, (shape, sd) in declared.items()}


def check_initialisation(declared, made):
    """Names and shapes are equal; standard deviations are within five of their own standard errors."""
    assert set(declared) == set(made), set(declared) ^ set(made)
    for name, (shape, sd) in declared.items():
        assert tuple(made[name].shape) == shape, (name, made[name].shape, shape)
        if sd == 0:
            assert made[name].eq(1).all(), name
        else:
            error = abs(made[name].double().square().mean().sqrt().item() / sd - 1)
            assert error <= 5 / math.sqrt(2 * made[name].numel()), (name, error)


def check(model, tokens):
    label, exchange = f"{model.architecture} {json.dumps(model.options)}", sys.argv[1]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        spec = {"architecture": model.architecture, "shape": model.shape, "options": model.options}
        (folder / "spec.json").write_text(json.dumps(spec))
        subprocess.run([exchange, "make", folder / "spec.json", folder / "made.safetensors"], check=True)
        made = load_file(folder / "made.safetensors")
        check_initialisation(model.declare(), made)
        return all([compare(f"{label}, {side}", exchange, folder, weights, model.logits, *tokens)
                    for side, weights in (("drawn here", draw(model.declare())), ("initialised there", made))])


def main(models, tokens):
    results = [check(model, tokens) for model in models]
    sys.exit(0 if all(results) else 1)
