"""`allo checkpoint export --to huggingface` and `import`: folders that transformers' from_pretrained reads and
save_pretrained writes, for T5 v1.0, T5 v1.1 and SwitchTransformers (sparse steps 4 and 2; whole and in shards).

Exported: a model that the built-in trainer's code made, loaded by transformers. Imported: a model that transformers made,
loaded by ours and exported again, tensor for tensor equal. Logits within 1e-4, loss within 1e-5 per token.
Exit code 77 (skipped) where transformers is not installed, or of another version than that of switch_parity.py."""

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

PINNED = "4.57."
SHAPE = dict(encoder_layers=6, decoder_layers=4, d_model=32, d_ff=48, heads=4, d_kv=12, vocabulary=200)
# Long enough that no expert runs out of slots in ours; NO_DROPS does the same there.
LENGTHS, NO_DROPS = {"inputs": 5120, "targets": 5120}, 192
LOGITS_TOLERANCE, LOSS_TOLERANCE = 1e-4, 1e-5
T5, SWITCH = transformers.T5ForConditionalGeneration, transformers.SwitchTransformersForConditionalGeneration
COMMON = dict(vocab_size=SHAPE["vocabulary"], d_model=SHAPE["d_model"], d_kv=SHAPE["d_kv"],
              num_layers=SHAPE["encoder_layers"], num_decoder_layers=SHAPE["decoder_layers"],
              num_heads=SHAPE["heads"], decoder_start_token_id=0)


def switch_config(step):
    config = transformers.SwitchTransformersConfig(**COMMON, d_ff=SHAPE["d_ff"], num_experts=32)
    # It derives these from the depth; they are set after constructing.
    config.encoder_sparse_step = config.decoder_sparse_step = step
    return config


# Name -> our architecture and options, their class, their configuration. Gated layers are two thirds as wide.
CASES = {
    "T5 v1.0": ("transformer", {}, T5, lambda: transformers.T5Config(**COMMON, d_ff=48, feed_forward_proj="relu")),
    "T5 v1.1": ("glu", {"activation": "gelu", "tied_embedding": False}, T5, lambda: transformers.T5Config(
        **COMMON, d_ff=32, feed_forward_proj="gated-gelu", tie_word_embeddings=False)),
    "Switch, step 4": ("switch", {"placement": "huggingface"}, SWITCH, lambda: switch_config(4)),
    "Switch, step 2": ("switch", {"placement": "switch_base"}, SWITCH, lambda: switch_config(2)),
}


class Programs:
    def __init__(self, allo, exchange):
        self.allo, self.exchange = allo, exchange

    def checkpoint(self, *words):
        done = subprocess.run([self.allo, "checkpoint", *map(str, words), "--format", "json"], capture_output=True,
                              text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def make(self, spec, folder):
        """A folder as the trainer leaves it, with fresh weights."""
        folder.mkdir()
        made = folder / "made.safetensors"
        subprocess.run([self.exchange, "make", write(folder / "spec.json", spec), made], check=True)
        save_file(stacked(load_file(made)), folder / "model.safetensors")
        write(folder / "model.json", {"format_version": 1, "architecture": spec["architecture"], "shape": spec["shape"],
                                      "options": spec["options"], "numerics_version": 1, "precision": "fp32"})

    def answer(self, spec, weights, folder):
        """Logits and summed loss of our model with the weights of a `model` folder."""
        inputs, targets = batch()
        save_file({**weights, "inputs": inputs, "targets": targets}, folder / "in.safetensors")
        subprocess.run([self.exchange, "run", write(folder / "spec.json", spec), folder / "in.safetensors",
                        folder / "out.safetensors"], check=True)
        out = load_file(folder / "out.safetensors")
        return out["logits"], out["nll_sum"].item()


def write(path, value):
    path.write_text(json.dumps(value))
    return path


def stacked(weights):
    """Experts as the trainer keeps them: those of a layer in one tensor."""
    out, experts = {}, {}
    for name, tensor in weights.items():
        layer, found, rest = name.partition(".expert_")
        if found:
            number, _, kind = rest.partition(".")
            experts.setdefault(f"{layer}.{kind}", {})[int(number)] = tensor
        else:
            out[name] = tensor
    return out | {name: torch.stack([of[e] for e in sorted(of)]) for name, of in experts.items()}


def batch():
    """Long enough for every distance bucket, with padding on both sides of the model."""
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randint(2, SHAPE["vocabulary"], (2, 180), generator=generator)
    targets = torch.randint(2, SHAPE["vocabulary"], (2, 150), generator=generator)
    inputs[1, 100:] = 0
    targets[0, 120:] = 0
    return inputs, targets


def loaded(model_class, folder):
    """What from_pretrained makes of a folder; every tensor of the model must have come out of it."""
    model, info = model_class.from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    for name, module in model.named_modules():
        if name.endswith("mlp.router"):
            module.expert_capacity = NO_DROPS
    return model.eval()


def hugging_face_answer(model):
    inputs, targets = batch()
    shifted = torch.cat([torch.zeros_like(targets[:, :1]), targets[:, :-1]], dim=1)
    with torch.no_grad():
        logits = model(input_ids=inputs, attention_mask=(inputs != 0).long(), decoder_input_ids=shifted).logits
    nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=0, reduction="sum")
    return logits, nll.item()


def compare(name, ours, theirs):
    unpadded = batch()[1] != 0
    logits_error = (ours[0] - theirs[0])[unpadded].abs().max().item()
    loss_error = abs(ours[1] - theirs[1]) / unpadded.sum().item()
    print(f"{name}: logits differ by {logits_error:.2e}, loss by {loss_error:.2e} (loss {theirs[1] / unpadded.sum():.4f})")
    return logits_error <= LOGITS_TOLERANCE and loss_error <= LOSS_TOLERANCE


def check_output_table(model, folder):
    """A table of its own must not have been tied to the input's: current transformers tie what does not differ."""
    if model.config.feed_forward_proj != "gated-gelu":
        return
    stored = load_file(folder / "model.safetensors")["lm_head.weight"]
    assert torch.equal(model.lm_head.weight, stored), "the output table is not the one in the folder"
    assert not torch.equal(model.lm_head.weight, model.shared.weight), "the output table is tied"


def check_export(name, programs, folder):
    architecture, options, model_class, _ = CASES[name]
    spec = {"architecture": architecture, "shape": SHAPE, "options": options, "lengths": LENGTHS}
    programs.make(spec, folder / "model")
    (folder / "model/spiece.model").write_bytes(b"pieces")
    shown = programs.checkpoint("export", folder / "model", "--to", "huggingface", "-o", folder / "exported")
    model = loaded(model_class, folder / "exported")
    tied = sum(p.numel() for p in model.parameters())
    assert shown["models"][0]["parameters"] == tied, (shown, tied)
    assert (folder / "exported/spiece.model").read_bytes() == b"pieces"
    if model_class is T5:
        check_output_table(model, folder / "exported")
    ours = programs.answer(spec, load_file(folder / "model/model.safetensors"), folder)
    return compare(f"{name}, exported", ours, hugging_face_answer(model))


def check_import(name, programs, folder, **saving):
    architecture, options, model_class, config = CASES[name]
    torch.manual_seed(11)
    model = model_class(config()).eval()
    model.save_pretrained(folder / "theirs", **saving)
    model = loaded(model_class, folder / "theirs")
    shown = programs.checkpoint("import", folder / "theirs", "-o", folder / "imported")
    spec = {"architecture": architecture, "shape": shown["shape"], "options": shown["options"], "lengths": LENGTHS}
    assert shown["shape"] == SHAPE and options.items() <= shown["options"].items(), shown
    good = compare(f"{name}, imported", programs.answer(spec, load_file(folder / "imported/model.safetensors"), folder),
                   hugging_face_answer(model))
    programs.checkpoint("export", folder / "imported", "--to", "huggingface", "-o", folder / "again")
    again = loaded(model_class, folder / "again").state_dict()
    assert all(torch.equal(tensor, again[key]) for key, tensor in model.state_dict().items()), "not the same weights"
    return good


def main():
    if not transformers.__version__.startswith(PINNED):
        print(f"skipped: written for transformers {PINNED}*, this is {transformers.__version__}")
        sys.exit(77)
    transformers.utils.logging.disable_progress_bar()
    programs = Programs(*sys.argv[1:])
    good = []
    for name in CASES:
        for check, saving in ((check_export, {}), (check_import, {}), (check_import, {"max_shard_size": "100KB"})):
            with tempfile.TemporaryDirectory() as folder:
                good.append(check(name, programs, pathlib.Path(folder), **saving))
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
