"""`evolved` against its equations (So et al. 2019, arXiv 1901.11117; docs/architectures.md) in float64: logits within
1e-4, loss within 1e-5 per token, with weights moved both ways."""

import torch

from backbone_reference import BUCKETS, attention, attention_shapes, main, norm, position_bias, shift_right

SHAPE = dict(encoder_layers=4, decoder_layers=6, d_model=32, d_ff=48, heads=4, d_kv=12, vocabulary=200)
CASES = [{"max_heads": 0}, {"max_heads": 6}, {"max_heads": 4}]


def wide_heads(shape, options):
    return min(2 * shape["heads"], options["max_heads"] or 2 * shape["heads"])


def separable_shapes(prefix, width, source, target):
    return {f"{prefix}.depthwise.weight": (source, width), f"{prefix}.pointwise.weight": (target, source)}


def encoder_layer_shapes(p, shape):
    d, f, inner = shape["d_model"], shape["d_ff"], shape["heads"] * shape["d_kv"]
    return {f"{p}.{i}.layer_norm.weight": (d,) for i in range(4)} | attention_shapes(f"{p}.2.SelfAttention", d, inner) | {
        f"{p}.0.GatedLinearUnit.input.weight": (2 * d, d),
        f"{p}.1.EvolvedConvolution.left.weight": (4 * d, d),
        f"{p}.1.EvolvedConvolution.right.weight": (d // 2, 3 * d),
        f"{p}.1.EvolvedConvolution.hidden_norm.weight": (4 * d,),
        f"{p}.3.DenseReluDense.wi.weight": (f, d),
        f"{p}.3.DenseReluDense.wo.weight": (d, f),
    } | separable_shapes(f"{p}.1.EvolvedConvolution.output", 9, 4 * d, d // 2)


def decoder_layer_shapes(p, shape, options):
    d, f, inner = shape["d_model"], shape["d_ff"], shape["heads"] * shape["d_kv"]
    shapes = {f"{p}.{i}.layer_norm.weight": (d,) for i in range(5)}
    shapes |= attention_shapes(f"{p}.0.SelfAttention", d, wide_heads(shape, options) * shape["d_kv"])
    shapes |= attention_shapes(f"{p}.0.EncDecAttention", d, inner)
    shapes |= separable_shapes(f"{p}.1.EvolvedConvolution.left", 11, d, 2 * d)
    shapes |= separable_shapes(f"{p}.1.EvolvedConvolution.right", 7, d, d // 2)
    shapes |= separable_shapes(f"{p}.1.EvolvedConvolution.output", 7, 2 * d, d)
    shapes |= attention_shapes(f"{p}.2.SelfAttention", d, inner) | attention_shapes(f"{p}.3.EncDecAttention", d, inner)
    return shapes | {f"{p}.1.EvolvedConvolution.hidden_norm.weight": (2 * d,),
                     f"{p}.4.DenseSwishDense.wi.weight": (f, d), f"{p}.4.DenseSwishDense.wo.weight": (d, f)}


def parameter_shapes(shape, options):
    d, heads, wide = shape["d_model"], shape["heads"], wide_heads(shape, options)
    shapes = {"shared.weight": (shape["vocabulary"], d),
              "encoder.final_layer_norm.weight": (d,), "decoder.final_layer_norm.weight": (d,),
              "encoder.relative_attention_bias.weight": (BUCKETS, heads),
              "decoder.relative_attention_bias.weight": (BUCKETS, heads)}
    if wide != heads:
        shapes["decoder.wide_relative_attention_bias.weight"] = (BUCKETS, wide)
    for i in range(shape["encoder_layers"] // 2):
        shapes |= encoder_layer_shapes(f"encoder.block.{i}.layer", shape)
    for i in range(shape["decoder_layers"] // 2):
        shapes |= decoder_layer_shapes(f"decoder.block.{i}.layer", shape, options)
    return shapes


def convolution(x, kernel, first, groups):
    """kernel [out, in / groups, width] over offsets first, first + 1, ...; zeros outside."""
    last = first + kernel.shape[-1] - 1
    padded = torch.nn.functional.pad(x.transpose(1, 2), (-first, last))
    return torch.nn.functional.conv1d(padded, kernel, groups=groups).transpose(1, 2)


def separable(w, prefix, x, first):
    depthwise, pointwise = w[f"{prefix}.depthwise.weight"], w[f"{prefix}.pointwise.weight"]
    return convolution(x, depthwise[:, None, :], first, groups=x.shape[-1]) @ pointwise.T


def widen(x, channels):
    return torch.cat([x, x.new_zeros(*x.shape[:-1], channels - x.shape[-1])], dim=-1)


def encoder_layer(w, p, x, shape, keep, bias):
    d = shape["d_model"]
    h = norm(x, w[f"{p}.0.layer_norm.weight"])
    u, v = (h @ w[f"{p}.0.GatedLinearUnit.input.weight"].T).split(d, dim=-1)
    x = x + u * torch.sigmoid(v)

    h, c = norm(x, w[f"{p}.1.layer_norm.weight"]), f"{p}.1.EvolvedConvolution"
    left = torch.relu(h @ w[f"{c}.left.weight"].T)
    taps = w[f"{c}.right.weight"].unflatten(-1, (3, d)).transpose(1, 2)  # [out, in, tap]
    right = torch.relu(convolution(h * keep, taps, -1, groups=1))
    hidden = norm(left + widen(right, 4 * d), w[f"{c}.hidden_norm.weight"])
    x = x + widen(separable(w, f"{c}.output", hidden * keep, -4), d)

    h = norm(x, w[f"{p}.2.layer_norm.weight"])
    x = x + attention(w, f"{p}.2.SelfAttention", h, h, shape["heads"], bias, keep[..., 0] == 0)
    h = norm(x, w[f"{p}.3.layer_norm.weight"])
    return x + torch.relu(h @ w[f"{p}.3.DenseReluDense.wi.weight"].T) @ w[f"{p}.3.DenseReluDense.wo.weight"].T


def decoder_layer(w, p, x, shape, options, memory, padding, bias, wide_bias):
    d, heads = shape["d_model"], shape["heads"]
    h = norm(x, w[f"{p}.0.layer_norm.weight"])
    x = (x + attention(w, f"{p}.0.SelfAttention", h, h, wide_heads(shape, options), wide_bias)
         + attention(w, f"{p}.0.EncDecAttention", h, memory, heads, padding=padding))

    h, c = norm(x, w[f"{p}.1.layer_norm.weight"]), f"{p}.1.EvolvedConvolution"
    hidden = torch.relu(separable(w, f"{c}.left", h, -10)) + widen(separable(w, f"{c}.right", h, -6), 2 * d)
    x = x + separable(w, f"{c}.output", norm(hidden, w[f"{c}.hidden_norm.weight"]), -6)

    h = norm(x, w[f"{p}.2.layer_norm.weight"])
    x = x + attention(w, f"{p}.2.SelfAttention", h, h, heads, bias)
    h = norm(x, w[f"{p}.3.layer_norm.weight"])
    x = x + attention(w, f"{p}.3.EncDecAttention", h, memory, heads, padding=padding)
    z = norm(x, w[f"{p}.4.layer_norm.weight"]) @ w[f"{p}.4.DenseSwishDense.wi.weight"].T
    return x + (z * torch.sigmoid(z)) @ w[f"{p}.4.DenseSwishDense.wo.weight"].T


def logits_of(shape, options, w, inputs, targets):
    keep = (inputs != 0).double()[..., None]
    x = w["shared.weight"][inputs]
    bias = position_bias(w["encoder.relative_attention_bias.weight"], inputs.shape[1], causal=False)
    for i in range(shape["encoder_layers"] // 2):
        x = encoder_layer(w, f"encoder.block.{i}.layer", x, shape, keep, bias)
    memory = norm(x, w["encoder.final_layer_norm.weight"])

    x = w["shared.weight"][shift_right(targets)]
    bias = position_bias(w["decoder.relative_attention_bias.weight"], targets.shape[1], causal=True)
    wide = w.get("decoder.wide_relative_attention_bias.weight", w["decoder.relative_attention_bias.weight"])
    wide_bias = position_bias(wide, targets.shape[1], causal=True)
    for i in range(shape["decoder_layers"] // 2):
        x = decoder_layer(w, f"decoder.block.{i}.layer", x, shape, options, memory, inputs == 0, bias, wide_bias)
    x = norm(x, w["decoder.final_layer_norm.weight"])
    return x * shape["d_model"] ** -0.5 @ w["shared.weight"].T


if __name__ == "__main__":
    main("evolved", SHAPE, CASES, parameter_shapes, logits_of)
