#!/usr/bin/env python3
"""A second trainer, in plain Python: an interpolated n-gram model of words, by the trainer contract.

    ngram.py --config run.json        (docs/trainer-contract.md says what is in that file)

It shows all that a trainer has to do: read run.json, append events, write checkpoints on SIGTERM and now and then, resume,
and leave with the right exit code. Its `run` object:

    {"kind": "pretrain", "trainer": "ngram", "seed": 0, "steps": 50,
     "corpus": {"files": ["<sha256>", ...]},        or objects with a member "sha256"; paths come from execution.files
     "model": {"options": {"order": 3, "scale": 1.0, "vocabulary": 4096}}}

order: words that an n-gram has at most (1 to 8). scale: share of the training text that is counted (the model's "size",
0 to 1). vocabulary: the most frequent words; all others count as one unknown word.

The model (Witten and Bell 1991, interpolated): with c(h) the count of a history, t(h) its number of distinct followers,
    P(w | h) = (c(h w) + t(h) P(w | h without its first word)) / (c(h) + t(h)),   P(w | nothing left) = 1 / |vocabulary|.
Paragraphs are the documents; every twentieth by the hash of its text is held out for validation, whatever the seed.

Costs, counted as what the machine must do at least: counting a token updates `order` n-grams with one look-up and one
addition each (2 operations); a prediction needs a multiplication, an addition and a division per order (3 operations).
`forward_flops` is the prediction of one example of 128 tokens, `training_flops` all updates. `parameters` are the n-grams
that are kept.
"""
import argparse
import collections
import gzip
import hashlib
import json
import lzma
import math
import os
import pathlib
import re
import resource
import shutil
import signal
import sys
import time

DONE, STOPPED, CONFIGURATION_ERROR, DATA_ERROR = 0, 40, 42, 43
EXAMPLE_TOKENS = 128
UPDATE_OPERATIONS, PREDICTION_OPERATIONS = 2, 3
HELD_OUT_ONE_IN = 20
WORD = re.compile(r"\w+|[^\w\s]")
UNKNOWN, START = 0, 1


class Leave(Exception):
    """Ends the process with an exit code and a reason."""

    def __init__(self, code, reason):
        super().__init__(reason)
        self.code, self.reason = code, reason


class Stop:
    """Remembers that SIGTERM or SIGINT came."""

    def __init__(self):
        self.requested = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request)

    def _request(self, *_):
        self.requested = True


class Events:
    """Appends one JSON object a line to $ALLOMETRY_EVENTS, whole lines only."""

    def __init__(self, path):
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644) if path else None
        if self._fd is not None and self._ends_inside_a_line():
            os.write(self._fd, b"\n")

    def _ends_inside_a_line(self):
        size = os.fstat(self._fd).st_size
        return size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"

    def write(self, event, **fields):
        if self._fd is not None:
            os.write(self._fd, (json.dumps({"event": event, **fields}) + "\n").encode())


def number(options, name, default, kind, low, high):
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or kind(value) != value or not low <= value <= high:
        raise Leave(CONFIGURATION_ERROR, f"run.model.options.{name} must be from {low} to {high}, not {value!r}")
    return kind(value)


class Settings:
    """run.json, checked."""

    def __init__(self, path):
        try:
            file = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
            run, execution = file["run"], file.get("execution", {})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Leave(CONFIGURATION_ERROR, f"cannot read {path}: {error!r}") from error
        if run.get("kind") != "pretrain":
            raise Leave(CONFIGURATION_ERROR, f"run.kind is {run.get('kind')!r}: this trainer can only pretrain")
        options = run.get("model", {}).get("options", {})
        unknown = sorted(set(options) - {"order", "scale", "vocabulary"})
        if unknown:
            raise Leave(CONFIGURATION_ERROR, f"run.model.options.{unknown[0]} is unknown; there are order, scale, vocabulary")
        self.order = number(options, "order", 3, int, 1, 8)
        self.scale = number(options, "scale", 1.0, float, 1e-6, 1.0)
        self.vocabulary = number(options, "vocabulary", 4096, int, 2, 1 << 20)
        self.seed = int(run.get("seed", 0))
        self.steps = int(run.get("steps", 50))
        if self.steps < 1:
            raise Leave(CONFIGURATION_ERROR, f"run.steps must be at least 1, not {self.steps}")
        self.files = self._paths(run, execution)
        self.resume = execution.get("resume")
        self.keep_final = execution.get("keep_final", True)
        self.checkpoint_interval_s = execution.get("checkpoint_interval_s", 30)
        self.run_sha256 = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()

    @staticmethod
    def _paths(run, execution):
        entries = run.get("corpus", {}).get("files", [])
        if not entries:
            raise Leave(CONFIGURATION_ERROR, "run.corpus.files is empty: name at least one text file by its SHA-256")
        paths = []
        for entry in entries:
            if isinstance(entry, dict) and str(entry.get("name", "")).endswith(".index"):
                continue  # a dictionary's table of offsets holds no text
            sha256 = entry["sha256"] if isinstance(entry, dict) else entry
            if sha256 not in execution.get("files", {}):
                raise Leave(CONFIGURATION_ERROR, f"execution.files has no path for the corpus file {sha256}")
            paths.append(execution["files"][sha256])
        return paths


def read_text(path):
    """Text of a file, plain or compressed with gzip or xz; told by its first bytes, since blobs have no extensions."""
    try:
        content = pathlib.Path(path).read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        elif content[:6] == b"\xfd7zXZ\x00":
            content = lzma.decompress(content)
        elif content[:4] == b"\x28\xb5\x2f\xfd":
            raise Leave(DATA_ERROR, f"{path} is compressed with zstd, which plain Python cannot read: use gzip or xz")
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise Leave(DATA_ERROR, f"cannot read {path}: {error}") from error
    return content.decode("utf-8", errors="replace")


def share_of(*keys):
    """A number in [0, 1) that depends on nothing but the keys."""
    digest = hashlib.sha256("\0".join(map(str, keys)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64


class Corpus:
    """Documents as lists of word numbers, split into training and validation text."""

    def __init__(self, settings):
        documents = []
        for path in settings.files:
            documents += [WORD.findall(part.lower()) for part in re.split(r"\n\s*\n", read_text(path)) if part.strip()]
        texts = [" ".join(words) for words in documents]
        held_out = [share_of("validation", text) < 1 / HELD_OUT_ONE_IN for text in texts]
        training = [words for words, out in zip(documents, held_out) if not out]
        chosen = [words for words in training if share_of("train", settings.seed, " ".join(words)) < settings.scale]
        validation = [words for words, out in zip(documents, held_out) if out]
        if not chosen or not validation:
            raise Leave(DATA_ERROR, f"{len(documents)} paragraphs leave {len(chosen)} to count and {len(validation)} to "
                                    "validate on: give more text")
        # From all training text, so that models of every scale predict the same tokens.
        frequency = collections.Counter(word for words in training for word in words)
        frequent = sorted(frequency, key=lambda word: (-frequency[word], word))[: settings.vocabulary - 1]
        self.number_of = {word: i + 2 for i, word in enumerate(frequent)}
        self.vocabulary = len(frequent) + 1  # with the unknown word
        self.training = [self._numbers(words) for words in chosen]
        self.validation = [self._numbers(words) for words in validation]

    def _numbers(self, words):
        return [self.number_of.get(word, UNKNOWN) for word in words]


class NgramModel:
    """Counts by history: followers[h][w], for histories of 0 to order - 1 words."""

    def __init__(self, order, vocabulary):
        self.order, self.vocabulary = order, vocabulary
        self.followers, self.totals = {}, collections.Counter()

    def count(self, document):
        padded = [START] * (self.order - 1) + document
        for i in range(self.order - 1, len(padded)):
            for length in range(self.order):
                history = tuple(padded[i - length:i])
                following = self.followers.setdefault(history, {})
                following[padded[i]] = following.get(padded[i], 0) + 1
                self.totals[history] += 1

    def probability(self, history, word):
        result = 1.0 / self.vocabulary
        for length in range(self.order):
            h = history[len(history) - length:]
            following = self.followers.get(h)
            if not following:
                break
            distinct = len(following)
            result = (following.get(word, 0) + distinct * result) / (self.totals[h] + distinct)
        return result

    def loss(self, documents):
        """Mean negative log-likelihood of a token, in nats."""
        total, tokens = 0.0, 0
        for document in documents:
            padded = [START] * (self.order - 1) + document
            for i in range(self.order - 1, len(padded)):
                total -= math.log(self.probability(tuple(padded[i - self.order + 1:i]), padded[i]))
            tokens += len(document)
        return total / tokens

    def size(self):
        return sum(map(len, self.followers.values()))

    def to_json(self):
        return [[list(h), list(f.items())] for h, f in self.followers.items()]

    def from_json(self, entries):
        for history, following in entries:
            self.followers[tuple(history)] = dict(map(tuple, following))
            self.totals[tuple(history)] = sum(n for _, n in following)


def write_folder(folder, name, content):
    """A folder with one file, which appears complete or not at all."""
    unfinished = folder.with_name("." + folder.name)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    with open(unfinished / name, "w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(unfinished, folder)


class Run:
    def __init__(self, settings, directory, events, stop):
        self.settings, self.directory, self.events, self.stop = settings, directory, events, stop
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.corpus = Corpus(settings)
        self.model = NgramModel(settings.order, self.corpus.vocabulary)

    def resume(self):
        own = sorted((self.directory / "checkpoint").glob("step-*"), key=lambda p: int(p.name[5:]), reverse=True)
        given = [pathlib.Path(self.settings.resume)] if self.settings.resume else []
        for folder in given + own:
            try:
                state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
                if state["run_sha256"] != self.settings.run_sha256 or state["step"] <= self.step:
                    continue
            except (OSError, ValueError, KeyError) as error:
                print(f"checkpoint {folder} skipped: {error!r}", file=sys.stderr)
                continue
            self.model = NgramModel(self.settings.order, self.corpus.vocabulary)
            self.model.from_json(state["model"])
            self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]

    def save(self):
        folder = self.directory / "checkpoint" / f"step-{self.step}"
        write_folder(folder, "state.json", {"run_sha256": self.settings.run_sha256, "step": self.step, "tokens": self.tokens,
                                            "seconds": self.seconds, "model": self.model.to_json()})
        for old in (self.directory / "checkpoint").glob("step-*"):
            if int(old.name[5:]) != self.step:
                shutil.rmtree(old, ignore_errors=True)
        self.events.write("checkpoint", step=self.step, path=f"checkpoint/step-{self.step}")

    def count_all(self):
        documents, steps = self.corpus.training, self.settings.steps
        last_checkpoint = last_progress = time.monotonic()
        while self.step < steps:
            if self.stop.requested:
                self.save()
                raise Leave(STOPPED, f"stopped on request after step {self.step}")
            start = time.monotonic()
            for document in documents[len(documents) * self.step // steps:len(documents) * (self.step + 1) // steps]:
                self.model.count(document)
                self.tokens += len(document)
            self.step += 1
            now = time.monotonic()
            self.seconds += now - start
            if now - last_progress >= 0.5 or self.step == steps:
                last_progress = now
                self.events.write("progress", step=self.step, steps=steps,
                                  tokens_per_second=self.tokens / max(self.seconds, 1e-9))
            if now - last_checkpoint >= self.settings.checkpoint_interval_s:
                last_checkpoint = now
                self.save()

    def result(self):
        loss = self.model.loss(self.corpus.validation)
        self.events.write("metric", step=self.step, values={"valid/loss": loss})
        metrics = {
            "validation_loss": loss,
            "parameters": self.model.size(),
            "non_embedding_parameters": self.model.size(),
            "training_flops": UPDATE_OPERATIONS * self.settings.order * self.tokens,
            "forward_flops": PREDICTION_OPERATIONS * self.settings.order * EXAMPLE_TOKENS,
            "steps": self.step,
            "tokens": self.tokens,
            "device_seconds": self.seconds,
            "tokens_per_second": self.tokens / max(self.seconds, 1e-9),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        outputs = {}
        if self.settings.keep_final:
            words = {number: word for word, number in self.corpus.number_of.items()}
            write_folder(self.directory / "model", "ngrams.json",
                         {"order": self.settings.order, "words": words, "ngrams": self.model.to_json()})
            outputs["model"] = "model"
        self.events.write("result", metrics=metrics, scores=[], outputs=outputs,
                          report={"training_documents": len(self.corpus.training),
                                  "validation_documents": len(self.corpus.validation)})


def main():
    parser = argparse.ArgumentParser(description="An n-gram trainer in plain Python, by Allometry's trainer contract.")
    parser.add_argument("--config", required=True, help="run.json")
    arguments = parser.parse_args()
    stop = Stop()
    try:
        settings = Settings(arguments.config)
        events = Events(os.environ.get("ALLOMETRY_EVENTS"))
        run = Run(settings, pathlib.Path(os.environ.get("ALLOMETRY_RUN_DIR", ".")), events, stop)
        run.resume()
        events.write("start", device="cpu", precision="fp64", resumed_step=run.step,
                     provenance={"python": sys.version.split()[0], "trainer": "ngram.py"})
        run.count_all()
        run.result()
    except Leave as leave:
        print(leave.reason, file=sys.stderr)
        return leave.code
    return DONE


if __name__ == "__main__":
    sys.exit(main())
