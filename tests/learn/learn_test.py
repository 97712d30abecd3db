#!/usr/bin/env python3
"""Every architecture learns real text and uses its inputs; fine-tuned, it answers with labels.

    learn_test.py FOLDER prepare ARCHITECTURE...    prepares GCIDE and a WordNet task once, for all
    learn_test.py FOLDER ARCHITECTURE               trains one; prints a row of docs/architectures.md's table

Exit code 77: the Debian packages dict-gcide and wordnet-base are not installed.
"""
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "unit/engine"))
import trainer_process  # noqa: E402
from trainer_process import TRAINER, Attempt, result, series  # noqa: E402

trainer_process.WAIT_SECONDS = 6 * 3600  # a hang: a busy machine takes many times what a free one does

GCIDE = [pathlib.Path("/usr/share/dictd") / name for name in ("gcide.dict.dz", "gcide.index")]
WORDNET = [pathlib.Path("/usr/share/wordnet") / f"data.{part}" for part in ("noun", "verb", "adj", "adv")]
SKIPPED = 77

# What docs/architectures.md says under "They learn". One recipe for all: a few seconds of arithmetic each.
VOCABULARY, INPUT_LENGTH = 512, 32
SHAPE = {"encoder_layers": 4, "decoder_layers": 4, "d_model": 32, "d_ff": 128, "heads": 4, "d_kv": 8,
         "vocabulary": VOCABULARY}
PRETRAIN = {"kind": "pretrain", "trainer": "builtin", "data": "d" * 64, "seed": 0,
            "objective": {"name": "span_corruption", "input_length": INPUT_LENGTH},
            "optimizer": {"name": "adafactor", "learning_rate": 0.06, "schedule": "cosine", "warmup_steps": 60},
            "batch_sequences": 32, "steps": 900, "evaluation": {"examples": 1024}}
# What differs from that. Fifteen softmaxes take longer to find their inputs: at 900 steps swapping them raises the loss
# by 0.03 only. So do GRU gates, which also learn at lower rates only, since one block's weights are applied many times.
LAYERS = {"universal": 2}
STEPS = {"mos": 1300, "universal": 2500}
LEARNING_RATES = {"universal": 0.03}
FINETUNE = {"kind": "finetune", "trainer": "builtin", "data": "d" * 64, "parent": "p" * 64, "seed": 0,
            "tasks": [{"name": "wordnet_pos", "max_valid": 128}], "input_length": INPUT_LENGTH, "target_length": 8,
            "optimizer": {"name": "adafactor", "learning_rate": 0.02, "schedule": "constant"},
            "batch_sequences": 16, "steps": 60}
# Nats per token. The unigram cross-entropy and the loss beside it leave out sentinels and end marks.
LEAST_GAIN = 0.3
# A model that ignores its inputs has no rise at all; the least in docs/architectures.md is 0.148.
LEAST_RISE_BY_SWAPPING = 0.05
LEAST_FALL_IN_FINETUNING = 0.5


def finished(attempt):
    assert attempt.finish() == 0, attempt.errors
    return attempt


def raw_file(path, paths):
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    paths[sha256] = str(path)
    return {"name": path.name, "bytes": len(content), "sha256": sha256}


def prepare(folder, listed):
    probe = json.loads(subprocess.run([TRAINER, "--probe"], capture_output=True, check=True, text=True).stdout)
    assert sorted(listed) == sorted(probe["architectures"]), f"{listed} are tested, there are {probe['architectures']}"
    paths = {}
    run = {"kind": "prepare", "trainer": "builtin", "seed": 0, "tokenizer": {"vocabulary": VOCABULARY},
           "corpus": {"format": "gcide", "files": [raw_file(path, paths) for path in GCIDE],
                      "validation_fraction": 0.01},
           "tasks": [{"name": "wordnet_pos", "files": [raw_file(path, paths) for path in WORDNET]}]}
    finished(Attempt(folder / "prepare", run, {"files": paths}))


def model(architecture):
    layers = LAYERS.get(architecture, SHAPE["encoder_layers"])
    shape = {**SHAPE, "encoder_layers": layers, "decoder_layers": layers}
    # A mixer is built for its lengths: the trainer is told them here, by a sweep otherwise.
    lengths = {"input_length": INPUT_LENGTH, "target_length": INPUT_LENGTH} if architecture == "mixer" else {}
    return {"architecture": architecture, "shape": shape, "options": lengths}


def pretrain(folder, architecture, inputs):
    optimizer = PRETRAIN["optimizer"]
    rate = LEARNING_RATES.get(architecture, optimizer["learning_rate"])
    run = {**PRETRAIN, "model": model(architecture), "steps": STEPS.get(architecture, PRETRAIN["steps"]),
           "optimizer": {**optimizer, "learning_rate": rate}}
    metrics = result(finished(Attempt(folder / "pretrain", run, {"inputs": inputs})))["metrics"]
    gain = metrics["unigram_loss"] - metrics["text_loss"]
    rise = metrics["swapped_inputs_loss"] - metrics["validation_loss"]
    print(f"| `{architecture}` | {metrics['non_embedding_parameters']:,.0f} | {metrics['text_loss']:.3f} | {gain:.3f} | "
          f"{metrics['validation_loss']:.3f} | {metrics['swapped_inputs_loss']:.3f} | {rise:.3f} |", flush=True)
    assert gain >= LEAST_GAIN, f"only {gain:.3f} nats below the unigram cross-entropy {metrics['unigram_loss']:.3f}"
    assert rise >= LEAST_RISE_BY_SWAPPING, f"other inputs raise the loss by {rise:.4f} only: the inputs are not used"


def finetune(folder, architecture, inputs):
    run = {**FINETUNE, "model": model(architecture)}
    attempt = finished(Attempt(folder / "finetune", run, {"inputs": inputs, "log_every": 10}))
    losses = series(attempt.events(), "train/loss")
    score, = result(attempt)["scores"]
    print(f"fine-tuned: loss {losses[10]:.3f} to {losses[FINETUNE['steps']]:.3f}, accuracy {score['value']:.3f}, "
          f"{score['unparsed']} of {score['examples']} answers are no label", flush=True)
    assert losses[FINETUNE["steps"]] < losses[10] - LEAST_FALL_IN_FINETUNING, losses
    assert score["unparsed"] < score["examples"] / 4, score


def main(folder, architecture, *listed):
    missing = [str(path) for path in GCIDE + WORDNET if not path.exists()]
    if missing:
        print(f"skipped: {', '.join(missing)} missing (dict-gcide, wordnet-base)")
        return SKIPPED
    if architecture == "prepare":
        prepare(folder, listed)
        return 0
    own = folder / architecture
    shutil.rmtree(own, ignore_errors=True)
    data = {"data": str(folder / "prepare/data")}
    pretrain(own, architecture, data)
    finetune(own, architecture, {**data, "model": str(own / "pretrain/model")})
    shutil.rmtree(own)
    return 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]), *sys.argv[2:]))
