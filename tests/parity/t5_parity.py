"""Models against Hugging Face's T5ForConditionalGeneration: `transformer` is T5 v1.0, `glu` with gelu and untied
embeddings is T5 v1.1. Logits within 1e-4, loss within 1e-5 per token, with weights moved both ways. Exit code 77
(skipped) where transformers is not installed."""

import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import torch
    import transformers
    from safetensors.torch import load_file, save_file
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

SHAPE = dict(encoder_layers=3, decoder_layers=2, d_model=32, d_ff=48, heads=4, d_kv=12, vocabulary=200)
# Gated layers are two thirds as wide, in multiples of 8.
CASES = {
    "transformer": dict(options={}, d_ff=48, feed_forward_proj="relu", tie_word_embeddings=True),
    "glu": dict(options={"activation": "gelu", "tied_embedding": False}, d_ff=32, feed_forward_proj="gated-gelu",
                tie_word_embeddings=False),
}
LOGITS_TOLERANCE, LOSS_TOLERANCE = 1e-4, 1e-5


def hugging_face_model(case):
    torch.manual_seed(11)
    config = transformers.T5Config(
        vocab_size=SHAPE["vocabulary"], d_model=SHAPE["d_model"], d_kv=SHAPE["d_kv"], d_ff=case["d_ff"],
        num_layers=SHAPE["encoder_layers"], num_decoder_layers=SHAPE["decoder_layers"], num_heads=SHAPE["heads"],
        dropout_rate=0.0, decoder_start_token_id=0, feed_forward_proj=case["feed_forward_proj"],
        tie_word_embeddings=case["tie_word_embeddings"])
    return transformers.T5ForConditionalGeneration(config).eval()


def batch():
    """Long enough for every distance bucket, with padding on both sides of the model."""
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randint(2, SHAPE["vocabulary"], (2, 180), generator=generator)
    targets = torch.randint(2, SHAPE["vocabulary"], (2, 150), generator=generator)
    inputs[1, 100:] = 0
    targets[0, 120:] = 0
    return inputs, targets


def hugging_face_answer(model, inputs, targets):
    with torch.no_grad():
        labels = targets.masked_fill(targets == 0, -100)
        shifted = torch.cat([torch.zeros_like(targets[:, :1]), targets[:, :-1]], dim=1)
        out = model(input_ids=inputs, attention_mask=(inputs != 0).long(), decoder_input_ids=shifted, labels=labels)
    return out.logits, out.loss.item()


def compare(name, exchange, folder, model):
    inputs, targets = batch()
    weights = {n: p.detach().contiguous() for n, p in model.named_parameters()}
    save_file({**weights, "inputs": inputs, "targets": targets}, folder / "in.safetensors")
    subprocess.run([exchange, "run", folder / "spec.json", folder / "in.safetensors", folder / "out.safetensors"],
                   check=True)
    ours = load_file(folder / "out.safetensors")
    logits, loss = hugging_face_answer(model, inputs, targets)
    unpadded = targets != 0
    logits_error = (ours["logits"] - logits)[unpadded].abs().max().item()
    loss_error = abs(ours["nll_sum"].item() / unpadded.sum().item() - loss)
    print(f"{name}: logits differ by {logits_error:.2e}, loss by {loss_error:.2e} (loss {loss:.4f})")
    return logits_error <= LOGITS_TOLERANCE and loss_error <= LOSS_TOLERANCE


def check(architecture, exchange, folder):
    case = CASES[architecture]
    spec = {"architecture": architecture, "shape": SHAPE, "options": case["options"]}
    (folder / "spec.json").write_text(json.dumps(spec))
    model = hugging_face_model(case)
    good = compare(f"{architecture}, weights from Hugging Face", exchange, folder, model)
    subprocess.run([exchange, "make", folder / "spec.json", folder / "made.safetensors"], check=True)
    missing, unexpected = model.load_state_dict(load_file(folder / "made.safetensors"), strict=False)
    tied = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    if case["tie_word_embeddings"]:
        tied.add("lm_head.weight")
    assert not unexpected and set(missing) <= tied, (missing, unexpected)
    return compare(f"{architecture}, weights to Hugging Face", exchange, folder, model) and good


def main():
    with tempfile.TemporaryDirectory() as name:
        results = [check(architecture, sys.argv[1], pathlib.Path(name)) for architecture in CASES]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
