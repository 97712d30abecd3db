"""`switch` against Hugging Face's SwitchTransformersForConditionalGeneration (of transformers 4.57.3): logits within 1e-4,
cross-entropy within 1e-5 per token, the load-balancing loss within 1e-5 per sequence, with weights moved both ways.

Hugging Face gives every expert a fixed number of slots. It is compared with slots for all, where nothing is dropped, and
with as many as `switch` has in each stack. Its own loss adds other auxiliary terms, which are left out here; its
load-balancing function is applied to one layer and sequence at a time, without padding.
Exit code 77 (skipped) where transformers is not installed."""

import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import torch
    import transformers
    from safetensors.torch import load_file, save_file
    from transformers.models.switch_transformers.modeling_switch_transformers import load_balancing_loss_func
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

PINNED = "4.57."
SHAPE = dict(encoder_layers=6, decoder_layers=4, d_model=32, d_ff=48, heads=4, d_kv=12, vocabulary=200)
EXPERTS, BALANCE_WEIGHT = 32, 1e-2
LOGITS_TOLERANCE, LOSS_TOLERANCE, BALANCE_TOLERANCE = 1e-4, 1e-5, 1e-5
# Configured lengths of inputs and targets, and the slots that SCIENCE's rule max(4, floor(1.2 length / 32)) gives.
NONE_DROPS = ((5120, 5120), (192, 192))
SOME_DROP = ((250, 120), (9, 4))


def hugging_face_model(sparse_step, slots):
    torch.manual_seed(11)
    config = transformers.SwitchTransformersConfig(
        vocab_size=SHAPE["vocabulary"], d_model=SHAPE["d_model"], d_kv=SHAPE["d_kv"], d_ff=SHAPE["d_ff"],
        num_layers=SHAPE["encoder_layers"], num_decoder_layers=SHAPE["decoder_layers"], num_heads=SHAPE["heads"],
        num_experts=EXPERTS, dropout_rate=0.0, decoder_start_token_id=0)
    # It derives these from the depth; they are set after constructing.
    config.encoder_sparse_step = config.decoder_sparse_step = sparse_step
    model = transformers.SwitchTransformersForConditionalGeneration(config).eval()
    for name, module in model.named_modules():
        if name.endswith("mlp.router"):
            module.expert_capacity = slots[0] if name.startswith("encoder") else slots[1]
    return model


def batch():
    """Long enough for every distance bucket, with padding on both sides of the model."""
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randint(2, SHAPE["vocabulary"], (2, 180), generator=generator)
    targets = torch.randint(2, SHAPE["vocabulary"], (2, 150), generator=generator)
    inputs[1, 100:] = 0
    targets[0, 120:] = 0
    return inputs, targets


def watch_routers(model, inputs, targets):
    """A list that each pass fills with (which positions hold tokens, one-hot expert that serves each, logits), one entry
    per router."""
    seen = []
    for name, module in model.named_modules():
        if name.endswith("mlp.router"):
            tokens = (inputs if name.startswith("encoder") else targets) != 0
            module.register_forward_hook(
                lambda module, _, outputs, tokens=tokens: seen.append((tokens, outputs[0], outputs[2])))
    return seen


def balance_sum(seen):
    total = 0.0
    for tokens, _, logits in seen:
        for row in range(tokens.shape[0]):
            own = logits[row:row + 1, : int(tokens[row].sum())]
            total += load_balancing_loss_func(torch.softmax(own, -1), own.argmax(-1)).item()
    return total


def hugging_face_answer(model, inputs, targets, seen):
    seen.clear()
    shifted = torch.cat([torch.zeros_like(targets[:, :1]), targets[:, :-1]], dim=1)
    with torch.no_grad():
        logits = model(input_ids=inputs, attention_mask=(inputs != 0).long(), decoder_input_ids=shifted,
                       output_router_logits=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=0).item()
    dropped = sum(int(((served.sum(-1) == 0) & tokens).sum()) for tokens, served, _ in seen)
    return logits, loss, BALANCE_WEIGHT * balance_sum(seen), dropped


def compare(name, exchange, folder, model, seen):
    """Whether all is equal, and how many tokens were dropped."""
    inputs, targets = batch()
    weights = {n: p.detach().contiguous() for n, p in model.named_parameters()}
    save_file({**weights, "inputs": inputs, "targets": targets}, folder / "in.safetensors")
    subprocess.run([exchange, "run", folder / "spec.json", folder / "in.safetensors", folder / "out.safetensors"],
                   check=True)
    ours = load_file(folder / "out.safetensors")
    logits, loss, balance, dropped = hugging_face_answer(model, inputs, targets, seen)
    unpadded = targets != 0
    logits_error = (ours["logits"] - logits)[unpadded].abs().max().item()
    loss_error = abs(ours["nll_sum"].item() / unpadded.sum().item() - loss)
    balance_error = abs(ours["auxiliary"].item() - balance) / targets.shape[0]
    print(f"{name}: {dropped} tokens dropped; logits differ by {logits_error:.2e}, loss by {loss_error:.2e} "
          f"(loss {loss:.4f}), balance by {balance_error:.2e} ({balance:.4f})")
    good = logits_error <= LOGITS_TOLERANCE and loss_error <= LOSS_TOLERANCE and balance_error <= BALANCE_TOLERANCE
    return good, dropped


def check(placement, sparse_step, setting, exchange, folder):
    lengths, slots = setting
    spec = {"architecture": "switch", "shape": SHAPE, "options": {"placement": placement},
            "lengths": {"inputs": lengths[0], "targets": lengths[1]}}
    (folder / "spec.json").write_text(json.dumps(spec))
    model = hugging_face_model(sparse_step, slots)
    seen = watch_routers(model, *batch())
    name = f"switch, {placement}, {slots[0]} and {slots[1]} slots"
    good, dropped = compare(f"{name}, weights from Hugging Face", exchange, folder, model, seen)
    assert (dropped > 0) == (setting is SOME_DROP), dropped
    subprocess.run([exchange, "make", folder / "spec.json", folder / "made.safetensors"], check=True)
    missing, unexpected = model.load_state_dict(load_file(folder / "made.safetensors"), strict=False)
    tied = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}
    assert not unexpected and set(missing) <= tied, (missing, unexpected)
    return compare(f"{name}, weights to Hugging Face", exchange, folder, model, seen)[0] and good


def main():
    if not transformers.__version__.startswith(PINNED):
        print(f"skipped: written for transformers {PINNED}*, this is {transformers.__version__}")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as name:
        results = [check(placement, step, setting, sys.argv[1], pathlib.Path(name))
                   for placement, step in (("huggingface", 4), ("switch_base", 2))
                   for setting in (NONE_DROPS, SOME_DROP)]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
