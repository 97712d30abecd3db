#!/usr/bin/env python3
"""The Python trainer as a process: results, exit codes, stopping and resuming."""
import gzip
import hashlib
import json
import lzma
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
import unittest

TRAINER = pathlib.Path(__file__).parents[3] / "examples/trainers/ngram.py"


def made_up_text(paragraphs, seed=1):
    """Sentences of a small grammar: predictable enough that longer histories help."""
    pick = random.Random(seed)
    def sentence():
        return (f"the {pick.choice(['old', 'red', 'small'])} {pick.choice(['fox', 'cart', 'river'])} "
                f"{pick.choice(['runs past', 'waits for', 'follows'])} a {pick.choice(['stone', 'tree', 'king'])} .")
    return "\n\n".join(" ".join(sentence() for _ in range(pick.randint(2, 6))) for _ in range(paragraphs))


class NgramTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="allometry-ngram-")
        self.addCleanup(self.folder.cleanup)
        self.path = pathlib.Path(self.folder.name)
        self.text = made_up_text(400)

    def prepare(self, options=None, content=None, name="run", **run):
        directory = self.path / name
        directory.mkdir(exist_ok=True)
        content = self.text.encode() if content is None else content
        sha256 = hashlib.sha256(content).hexdigest()
        (self.path / sha256).write_bytes(content)
        config = {"contract_version": 1,
                  "run": {"kind": "pretrain", "trainer": "ngram", "corpus": {"files": [{"sha256": sha256, "name": "t"}]},
                          "model": {"options": options or {}}, **run},
                  "execution": {"files": {sha256: str(self.path / sha256)}}}
        (directory / "run.json").write_text(json.dumps(config))
        return directory

    def start(self, directory):
        environment = {**os.environ, "ALLOMETRY_EVENTS": str(directory / "events"), "ALLOMETRY_RUN_DIR": str(directory)}
        return subprocess.Popen([sys.executable, TRAINER, "--config", "run.json"], cwd=directory, env=environment,
                                stderr=subprocess.PIPE, text=True)

    def finish(self, process):
        _, errors = process.communicate(timeout=300)
        return process.returncode, errors

    def events(self, directory):
        return [json.loads(line) for line in (directory / "events").read_text().splitlines()]

    def metrics(self, *arguments, **keywords):
        directory = self.prepare(*arguments, **keywords)
        code, errors = self.finish(self.start(directory))
        self.assertEqual(code, 0, errors)
        result = self.events(directory)[-1]
        self.assertEqual(result["event"], "result")
        return result["metrics"]

    def test_longer_histories_and_more_text_predict_better(self):
        losses = [self.metrics({"order": order}, name=f"o{order}")["validation_loss"] for order in (1, 2, 3)]
        self.assertGreater(losses[0], losses[1])
        self.assertGreater(losses[1], losses[2])
        little = self.metrics({"order": 3, "scale": 0.05}, name="little")
        much = self.metrics({"order": 3}, name="much")
        self.assertGreater(little["validation_loss"], much["validation_loss"])
        self.assertLess(little["training_flops"], much["training_flops"])
        self.assertLess(little["parameters"], much["parameters"])

    def test_counts_operations_and_ngrams_as_documented(self):
        metrics = self.metrics({"order": 2})
        self.assertEqual(metrics["training_flops"], 2 * 2 * metrics["tokens"])
        self.assertEqual(metrics["forward_flops"], 3 * 2 * 128)
        model = json.loads((self.path / "run/model/ngrams.json").read_text())
        self.assertEqual(metrics["parameters"], sum(len(following) for _, following in model["ngrams"]))

    def test_probabilities_of_all_words_add_up_to_one(self):
        sys.path.insert(0, str(TRAINER.parent))
        import ngram
        model = ngram.NgramModel(3, 7)
        pick = random.Random(2)
        for _ in range(20):
            model.count([pick.randrange(2, 8) for _ in range(9)])
        for history in [(0, 0), (2, 3), (7, 7), (1, 1)]:
            words = [ngram.UNKNOWN, *range(2, 8)]
            self.assertAlmostEqual(sum(model.probability(history, w) for w in words), 1.0, places=12)

    def test_compressed_text_is_the_same_text(self):
        plain = self.metrics(name="plain")["validation_loss"]
        self.assertEqual(self.metrics(content=gzip.compress(self.text.encode()), name="gz")["validation_loss"], plain)
        self.assertEqual(self.metrics(content=lzma.compress(self.text.encode()), name="xz")["validation_loss"], plain)

    def test_exit_codes(self):
        cases = [
            (42, dict(options={"order": 0})),
            (42, dict(options={"ordr": 2})),
            (42, dict(steps=0)),
            (43, dict(content=b"one paragraph only")),
            (43, dict(content=b"\x1f\x8b damaged")),
            (43, dict(content=b"\x28\xb5\x2f\xfd zstd")),
        ]
        for i, (expected, arguments) in enumerate(cases):
            code, errors = self.finish(self.start(self.prepare(name=f"case{i}", **arguments)))
            self.assertEqual(code, expected, errors)
            self.assertTrue(errors.strip(), "a reason is given")

    def test_stops_on_request_and_goes_on_to_the_same_result(self):
        whole = self.metrics({"order": 4}, name="whole", steps=3000)
        directory = self.prepare({"order": 4}, name="stopped", steps=3000)
        stops = 0
        for _ in range(200):
            process = self.start(directory)
            before = self.count_of_starts(directory)
            while process.poll() is None and self.count_of_starts(directory) == before:
                time.sleep(0.001)
            process.send_signal(signal.SIGTERM)
            code, errors = self.finish(process)
            self.assertIn(code, (0, 40), errors)
            if code == 0:
                break
            stops += 1
            self.assertEqual(self.events(directory)[-1]["event"], "checkpoint")
            if stops == 3:
                code, errors = self.finish(self.start(directory))
                self.assertEqual(code, 0, errors)
                break
        self.assertGreater(stops, 0)
        resumed = self.events(directory)[-1]["metrics"]
        for name in ("validation_loss", "parameters", "training_flops", "tokens"):
            self.assertEqual(resumed[name], whole[name])

    def count_of_starts(self, directory):
        events = directory / "events"
        return events.read_text().count('"start"') if events.exists() else 0


if __name__ == "__main__":
    unittest.main()
