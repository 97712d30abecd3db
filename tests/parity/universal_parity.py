"""`universal` against its equations (Dehghani et al. 2018, arXiv 1807.03819; Graves 2016, arXiv 1603.08983 for halting;
docs/architectures.md) in float64: logits within 1e-4, loss within 1e-5 per token, with weights moved both ways."""

import torch

from backbone_reference import BUCKETS, attention, attention_shapes, main, norm, position_bias, shift_right

SHAPE = dict(encoder_layers=2, decoder_layers=3, d_model=32, d_ff=48, heads=4, d_kv=12, vocabulary=200)
CASES = [{"gate": gate, "halting": halting} for gate in ("gru", "none") for halting in ("none", "act")]
APPLICATIONS_AROUND, EPSILON = 2, 0.05


def stack_shapes(stack, shape, options):
    d, f, inner = shape["d_model"], shape["d_ff"], shape["heads"] * shape["d_kv"]
    kinds = ["SelfAttention", "EncDecAttention", None] if stack == "decoder" else ["SelfAttention", None]
    shapes = {f"{stack}.final_layer_norm.weight": (d,), f"{stack}.step_signal.weight": (2 * shape[f"{stack}_layers"], d),
              f"{stack}.relative_attention_bias.weight": (BUCKETS, shape["heads"])}
    if options["halting"] == "act":
        shapes[f"{stack}.halt.weight"] = (1, d)
    for i, kind in enumerate(kinds):
        p = f"{stack}.block.0.layer.{i}"
        shapes[f"{p}.layer_norm.weight"] = (d,)
        shapes |= attention_shapes(f"{p}.{kind}", d, inner) if kind else {
            f"{p}.DenseReluDense.wi.weight": (f, d), f"{p}.DenseReluDense.wo.weight": (d, f)}
        if options["gate"] == "gru":
            shapes |= {f"{p}.gate.update_reset.weight": (2 * d, 2 * d), f"{p}.gate.candidate.weight": (d, 2 * d),
                       f"{p}.gate.value_norm.weight": (d,), f"{p}.gate.reset_norm.weight": (d,)}
    return shapes


def parameter_shapes(shape, options):
    table = (shape["vocabulary"], shape["d_model"])
    return {"shared.weight": table, "lm_head.weight": table} | stack_shapes("encoder", shape, options) | stack_shapes(
        "decoder", shape, options)


def enter(w, p, options, x, n, y):
    """What a sublayer's value y of n = norm x makes of the state x."""
    if options["gate"] == "none":
        return x + y
    y = norm(y, w[f"{p}.gate.value_norm.weight"])
    u, r = torch.sigmoid(torch.cat([n, y], -1) @ w[f"{p}.gate.update_reset.weight"].T).chunk(2, dim=-1)
    reset = norm(r * x, w[f"{p}.gate.reset_norm.weight"])
    c = torch.tanh(torch.cat([reset, y], -1) @ w[f"{p}.gate.candidate.weight"].T)
    return (1 - u) * x + u * c


def block(w, stack, shape, options, x, bias, padding, memory):
    """`padding` marks the inputs' padding: keys of the encoder's self-attention and of cross-attention."""
    p = f"{stack}.block.0.layer"
    n = norm(x, w[f"{p}.0.layer_norm.weight"])
    own_padding = padding if stack == "encoder" else None
    x = enter(w, f"{p}.0", options, x, n,
              attention(w, f"{p}.0.SelfAttention", n, n, shape["heads"], bias, own_padding))
    last = 1
    if stack == "decoder":
        n, last = norm(x, w[f"{p}.1.layer_norm.weight"]), 2
        x = enter(w, f"{p}.1", options, x, n,
                  attention(w, f"{p}.1.EncDecAttention", n, memory, shape["heads"], padding=padding))
    q = f"{p}.{last}"
    n = norm(x, w[f"{q}.layer_norm.weight"])
    y = torch.relu(n @ w[f"{q}.DenseReluDense.wi.weight"].T) @ w[f"{q}.DenseReluDense.wo.weight"].T
    return enter(w, q, options, x, n, y)


def halting_weights(probabilities):
    """Graves' weights of one position's steps: its probabilities up to the step at which their sum passes 1 - epsilon
    (or the last), which gets what is left of 1."""
    weights, total = [], 0.0
    for i, p in enumerate(probabilities):
        if total + p > 1 - EPSILON or i + 1 == len(probabilities):
            return weights + [1 - total]
        weights.append(p)
        total += p


def recur_until_halted(w, stack, x, steps, apply):
    """Position by position, in plain Python: each carries the probabilities it has seen. Returns the mean state and the
    numbers of steps that occur."""
    batch, length = x.shape[:2]
    seen = [[[] for _ in range(length)] for _ in range(batch)]
    history = [[[] for _ in range(length)] for _ in range(batch)]
    halted = torch.zeros(batch, length, dtype=torch.bool)
    for step in range(steps):
        z = x + w[f"{stack}.step_signal.weight"][step]
        p = torch.sigmoid(z @ w[f"{stack}.halt.weight"][0])
        after = apply(z)
        x = torch.where(halted[..., None], x, after)
        for b in range(batch):
            for t in range(length):
                if not halted[b, t]:
                    seen[b][t].append(p[b, t].item())
                    history[b][t].append(after[b, t])
                    halted[b, t] = sum(seen[b][t]) > 1 - EPSILON
    mean = torch.stack([torch.stack([
        sum(weight * state for weight, state in zip(halting_weights(seen[b][t]), history[b][t], strict=True))
        for t in range(length)]) for b in range(batch)])
    return mean, {len(seen[b][t]) for b in range(batch) for t in range(length)}


def run_stack(w, stack, shape, options, x, padding, step_counts, memory=None):
    bias = position_bias(w[f"{stack}.relative_attention_bias.weight"], x.shape[1], causal=stack == "decoder")
    steps = 2 * shape[f"{stack}_layers"]

    def apply(z):
        return block(w, stack, shape, options, z, bias, padding, memory)

    for _ in range(APPLICATIONS_AROUND):
        x = apply(x)
    if options["halting"] == "act":
        x, taken = recur_until_halted(w, stack, x, steps, apply)
        step_counts |= taken
    else:
        for step in range(steps):
            x = apply(x + w[f"{stack}.step_signal.weight"][step])
    for _ in range(APPLICATIONS_AROUND):
        x = apply(x)
    return norm(x, w[f"{stack}.final_layer_norm.weight"])


def logits_of(shape, options, w, inputs, targets):
    padding, step_counts = inputs == 0, set()
    memory = run_stack(w, "encoder", shape, options, w["shared.weight"][inputs], padding, step_counts)
    decoded = run_stack(w, "decoder", shape, options, w["shared.weight"][shift_right(targets)], padding, step_counts,
                        memory)
    assert options["halting"] == "none" or len(step_counts) > 1, "every position takes as many steps"
    return decoded @ w["lm_head.weight"].T


if __name__ == "__main__":
    main("universal", SHAPE, CASES, parameter_shapes, logits_of)
