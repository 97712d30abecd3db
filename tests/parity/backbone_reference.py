"""The shared backbone in plain equations, and the comparison of an architecture built on it with the built-in model.

Nothing here knows the C++ code: parameters are a dictionary of names to tensors, activations are float64. A parity test
calls `main` with what is particular to its architecture."""

import json
import math
import pathlib
import subprocess
import sys
import tempfile

try:
    import torch
    from safetensors.torch import load_file, save_file
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

LOGITS_TOLERANCE, LOSS_TOLERANCE = 1e-4, 1e-5
BUCKETS, MAX_DISTANCE = 32, 128


def norm(x, scale):
    return scale * x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6)


def bucket(relative, bidirectional):
    """T5's bucket of key position - query position: half of a direction's are exact, the rest logarithmic."""
    count, offset, distance = BUCKETS, 0, max(-relative, 0)
    if bidirectional:
        count, offset, distance = BUCKETS // 2, BUCKETS // 2 if relative > 0 else 0, abs(relative)
    exact = count // 2
    if distance < exact:
        return offset + distance
    far = math.log(distance / exact) / math.log(MAX_DISTANCE / exact)
    # T5 computes in float32; the nudge keeps exact powers on the same side.
    return offset + min(count - 1, exact + int(far * (count - exact) + 1e-6))


def position_bias(table, length, causal):
    """[heads, queries, keys] of a table [32, heads]."""
    index = torch.tensor([[bucket(k - q, not causal) for k in range(length)] for q in range(length)])
    bias = table[index].permute(2, 0, 1)
    return bias.masked_fill(torch.ones(length, length).triu(1).bool(), -math.inf) if causal else bias


def attention(w, prefix, h, source, heads, bias=None, padding=None):
    """Unscaled multi-head attention of h [b, t, d] over source [b, s, d]; `padding` [b, s] marks keys to leave out."""
    def split(x):
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    q, k, v = (split(x @ w[f"{prefix}.{name}.weight"].T) for x, name in ((h, "q"), (source, "k"), (source, "v")))
    scores = q @ k.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    if padding is not None:
        scores = scores.masked_fill(padding[:, None, None, :], -math.inf)
    return (torch.softmax(scores, -1) @ v).transpose(1, 2).flatten(-2) @ w[f"{prefix}.o.weight"].T


def attention_shapes(prefix, d, inner):
    return {f"{prefix}.{name}.weight": (inner, d) for name in "qkv"} | {f"{prefix}.o.weight": (d, inner)}


def shift_right(targets):
    return torch.cat([torch.zeros_like(targets[:, :1]), targets[:, :-1]], dim=1)


def batch(vocabulary):
    """Long enough for every distance bucket, with padding on both sides of the model."""
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randint(2, vocabulary, (2, 180), generator=generator)
    targets = torch.randint(2, vocabulary, (2, 150), generator=generator)
    inputs[1, 100:] = 0
    targets[0, 120:] = 0
    return inputs, targets


def draw(shapes, d_kv):
    """Random parameters, norms included, as large as initialised ones: sharper attention would make a deep recurrence
    chaotic, and float32 differ from float64 by more than any tolerance."""
    generator = torch.Generator().manual_seed(11)
    weights = {}
    for name, shape in shapes.items():
        x = torch.randn(shape, generator=generator)
        is_norm = len(shape) == 1
        scale = 0.3 if is_norm else 1.0 if name == "shared.weight" else shape[-1] ** -0.5
        if name.endswith(".q.weight"):
            scale *= d_kv ** -0.5
        weights[name] = x * scale + (1 if is_norm else 0)
    return weights


def compare(name, exchange, folder, weights, logits_of, inputs, targets):
    save_file({**weights, "inputs": inputs, "targets": targets}, folder / "in.safetensors")
    subprocess.run([exchange, "run", folder / "spec.json", folder / "in.safetensors", folder / "out.safetensors"],
                   check=True)
    ours = load_file(folder / "out.safetensors")
    logits = logits_of({key: value.double() for key, value in weights.items()}, inputs, targets)
    unpadded = targets != 0
    loss = torch.nn.functional.cross_entropy(logits[unpadded], targets[unpadded]).item()
    logits_error = (ours["logits"] - logits)[unpadded].abs().max().item()
    loss_error = abs(ours["nll_sum"].item() / unpadded.sum().item() - loss)
    print(f"{name}: logits differ by {logits_error:.2e}, loss by {loss_error:.2e} (loss {loss:.4f})")
    return logits_error <= LOGITS_TOLERANCE and loss_error <= LOSS_TOLERANCE


def main(architecture, shape, cases, parameter_shapes, logits_of):
    """`cases`: options; `parameter_shapes(shape, options)`: names to shapes; `logits_of(shape, options, weights, inputs,
    targets)`. Weights go both ways: drawn here and run there, initialised there and run here."""
    inputs, targets = batch(shape["vocabulary"])
    good = True
    for options in cases:
        with tempfile.TemporaryDirectory() as name:
            folder, label = pathlib.Path(name), f"{architecture} {json.dumps(options)}"
            (folder / "spec.json").write_text(
                json.dumps({"architecture": architecture, "shape": shape, "options": options}))
            expected = parameter_shapes(shape, options)
            subprocess.run([sys.argv[1], "make", folder / "spec.json", folder / "made.safetensors"], check=True)
            made = load_file(folder / "made.safetensors")
            assert {key: tuple(value.shape) for key, value in made.items()} == expected, \
                {key: tuple(value.shape) for key, value in made.items()}.items() ^ expected.items()
            for side, weights in (("drawn here", draw(expected, shape["d_kv"])), ("initialised there", made)):
                good &= compare(f"{label}, {side}", sys.argv[1], folder, weights,
                                lambda w, i, t: logits_of(shape, options, w, i, t), inputs, targets)
    sys.exit(0 if good else 1)
