#!/usr/bin/env python3
"""Several allo-trainer processes that train one model: equal to one, whatever happens to them."""
import json
import pathlib
import socket
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "engine"))
import small_data  # noqa: E402
from trainer_process import Attempt, result, series  # noqa: E402

VOCABULARY = 280
PEER_LOST, COLLECTIVE_TIMEOUT, STOPPED = 46, 50, 40
MIXER = {"input_length": 48, "target_length": 12}
# With what it takes to be small: layers of encoder and decoder, options.
ARCHITECTURES = {"transformer": (1, {}), "evolved": (2, {}), "funnel": (5, {}), "dconv": (1, {}), "glu": (1, {}),
                 "albert": (2, {}), "lconv": (1, {}), "mixer": (1, MIXER), "mos": (1, {}), "performer": (1, {}),
                 "switch": (4, {}), "universal": (1, {})}


# At the common rate universal multiplies a rounding by 10^13 within 50 steps, whatever caused it.
RATES = {"universal": 5e-4}


def pretrain(architecture="transformer", **more):
    layers, options = ARCHITECTURES[architecture]
    shape = {"encoder_layers": layers, "decoder_layers": layers, "d_model": 16, "d_ff": 32, "heads": 2, "d_kv": 8,
             "vocabulary": VOCABULARY}
    return {"kind": "pretrain", "trainer": "builtin", "data": "d" * 64,
            "model": {"architecture": architecture, "options": options, "shape": shape},
            "objective": {"name": "span_corruption", "input_length": 32, "noise_density": 0.15, "mean_span_length": 3.0},
            "optimizer": {"name": "adafactor", "learning_rate": RATES.get(architecture, 0.01), "schedule": "constant",
                          "clip_norm": 1.0},
            "batch_sequences": 9, "steps": 50, "seed": 3, "dropout": 0.1,
            "evaluation": {"examples": 70, "every_steps": 25}, **more}


class Gang:
    """The ranks of one attempt, each in a folder of its own."""

    def __init__(self, directory, run, ranks, inputs, attempt=1, **execution):
        directory = pathlib.Path(directory)
        rendezvous = directory / f"rendezvous-{attempt}"
        self.ranks = [Attempt(directory / (f"rank-{r}" if r else "first"), run,
                              {"inputs": inputs, "rank": r, "ranks": ranks, "rendezvous": str(rendezvous),
                               "log_every": 1, **execution}) for r in range(ranks)]

    def finish(self):
        return [rank.finish() for rank in self.ranks]

    @property
    def first(self):
        return self.ranks[0]

    @property
    def errors(self):
        return "\n".join(rank.errors for rank in self.ranks)


class RanksTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="allometry-ranks-")
        cls.addClassCleanup(folder.cleanup)
        cls.root = pathlib.Path(folder.name)
        raw = small_data.RawFiles(cls.root / "raw")
        prepared = Attempt(cls.root / "prepare", small_data.prepare_run(raw, vocabulary=VOCABULARY), {"files": raw.paths})
        assert prepared.finish() == 0, prepared.errors
        cls.inputs = {"data": str(cls.root / "prepare/data")}

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="allometry-case-", dir=self.root)
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name)

    def gang(self, name, run, ranks, inputs=None, **execution):
        return Gang(self.path / name, run, ranks, inputs or self.inputs, **execution)

    def done(self, name, run, ranks, **execution):
        gang = self.gang(name, run, ranks, **execution)
        self.assertEqual(gang.finish(), [0] * ranks, gang.errors)
        return gang.first

    def check_series(self, attempt, expected, relative, names=("train/loss", "train/grad_norm", "valid/loss")):
        for name in names:
            mine, theirs = series(attempt.events(), name), series(expected.events(), name)
            self.assertEqual(sorted(mine), sorted(theirs), name)
            for step, value in theirs.items():
                self.assertAlmostEqual(mine[step] / value, 1, delta=relative, msg=f"{name} at step {step}")
        for name in ("validation_loss", "text_loss", "swapped_inputs_loss"):
            self.assertAlmostEqual(result(attempt)["metrics"][name] / result(expected)["metrics"][name], 1, delta=relative)

    # --- equality

    def test_ranks_give_the_losses_of_one_in_float64_for_every_architecture(self):
        for architecture in ARCHITECTURES:
            with self.subTest(architecture):
                run = pretrain(architecture)
                one, two, four = (self.done(f"{architecture}{ranks}", run, ranks, precision="fp64", sharding=sharding)
                                  for ranks, sharding in ((1, "auto"), (2, "none"), (4, "optimizer")))
                for gang in (two, four):
                    self.check_series(gang, one, 1e-6)
                report = result(four)["report"]
                self.assertEqual((report["ranks"], report["sharding"]), (4, "optimizer"))
                self.assertEqual(result(two)["report"]["sharding"], "none")

    def test_in_float32_the_first_step_is_equal_and_the_drift_small(self):
        run = pretrain()
        one, two = (self.done(f"{ranks}", run, ranks) for ranks in (1, 2))
        losses, norms = ([series(a.events(), name) for a in (one, two)] for name in ("train/loss", "train/grad_norm"))
        self.assertAlmostEqual(losses[1][1] / losses[0][1], 1, delta=1e-5)
        self.assertAlmostEqual(norms[1][1] / norms[0][1], 1, delta=1e-4)
        self.check_series(two, one, 5e-3)

    def test_adamw_shards_too(self):
        run = pretrain(optimizer={"name": "adamw", "learning_rate": 0.003, "schedule": "constant", "weight_decay": 0.01})
        one, three = (self.done(f"{ranks}", run, ranks, precision="fp64", sharding="optimizer") for ranks in (1, 3))
        self.check_series(three, one, 1e-6)

    def test_divided_experts_are_whole_ones_elsewhere(self):
        for optimizer in ("adafactor", "adamw"):
            run = pretrain("switch", batch_sequences=8, steps=30,
                           optimizer={"name": optimizer, "learning_rate": 0.003, "schedule": "constant", "clip_norm": 1.0})
            one, two, four = (self.done(f"{optimizer}{ranks}", run, ranks, precision="fp64", experts="divided", **more)
                              for ranks, more in ((1, {}), (2, {"micro_batch": 2}), (4, {"sharding": "optimizer"})))
            for gang in (two, four):
                self.check_series(gang, one, 1e-6)
                self.assertEqual(result(gang)["report"]["experts"], "divided")
            self.assertEqual((four.directory / "model/model.safetensors").stat().st_size,
                             (one.directory / "model/model.safetensors").stat().st_size)

    def test_any_number_of_ranks_goes_on_with_divided_experts(self):
        run = pretrain("switch", batch_sequences=8, steps=60)
        straight = self.done("straight", run, 1, precision="fp64")
        for attempt, ranks, experts in ((1, 4, "divided"), (2, 2, "divided"), (3, 2, "whole")):
            gang = self.gang("run", run, ranks, precision="fp64", experts=experts, attempt=attempt, checkpoint_interval_s=0)
            self.assertTrue(gang.first.wait_for("checkpoint", count=8))
            gang.ranks[-1].kill()
            gang.finish()
        last = self.done("run", run, 1, precision="fp64", attempt=4)
        self.check_series(last, straight, 1e-6)

    def test_finetuning_by_two_ranks(self):
        parent = self.done("parent", pretrain(), 1)
        run = {"kind": "finetune", "trainer": "builtin", "model": pretrain()["model"], "data": "d" * 64, "parent": "p" * 64,
               "tasks": [{"name": "wordnet_pos", "max_valid": 40}], "mixture": {"cap": 0}, "input_length": 48,
               "target_length": 12, "optimizer": {"name": "adafactor", "learning_rate": 0.01, "schedule": "constant"},
               "batch_sequences": 6, "steps": 20, "dropout": 0.1, "seed": 0, "select": "best",
               "evaluation": {"every_steps": 5}}
        inputs = {**self.inputs, "model": str(parent.directory / "model")}
        one, two = (self.done(f"{ranks}", run, ranks, precision="fp64", inputs=inputs) for ranks in (1, 2))
        self.assertEqual(result(two)["scores"], result(one)["scores"])
        for step, loss in series(one.events(), "train/loss").items():
            self.assertAlmostEqual(series(two.events(), "train/loss")[step] / loss, 1, delta=1e-6)
        self.assertEqual((one.directory / "predictions/wordnet_pos.jsonl").read_text(),
                         (two.directory / "predictions/wordnet_pos.jsonl").read_text())

    def test_no_more_is_sent_than_the_ring_needs(self):
        run = pretrain(evaluation={"examples": 16})
        first = self.done("run", run, 4, checkpoint_interval_s=10_000)
        gradients = 4 * result(first)["metrics"]["parameters"]
        sent = result(first)["report"]["sent_bytes"] / run["steps"]
        self.assertGreater(sent, gradients * 2 * 3 / 4)
        self.assertLess(sent, gradients * 2 * 3 / 4 * 1.05)

    # --- stopping, killing, going on

    def test_every_rank_ends_when_one_is_killed_and_any_number_goes_on(self):
        run = pretrain(steps=300)
        straight = self.done("straight", run, 1, precision="fp64")
        for killed in (0, 2):
            name = f"killed{killed}"
            gang = self.gang(name, run, 3, precision="fp64", sharding="optimizer", checkpoint_interval_s=0)
            self.assertTrue(gang.first.wait_for("checkpoint", count=20))
            gang.ranks[killed].kill()
            codes = gang.finish()
            self.assertEqual([code for r, code in enumerate(codes) if r != killed], [PEER_LOST] * 2, gang.errors)
            self.assertIn("is gone", gang.ranks[1].errors)
            again = self.gang(name, run, 2, precision="fp64", attempt=2, checkpoint_interval_s=0)
            self.assertTrue(again.first.wait_for("checkpoint", count=20))
            again.ranks[1].kill()
            again.finish()
            last = self.done(name, run, 1, precision="fp64", attempt=3)
            starts = [e["resumed_step"] for e in last.events() if e["event"] == "start"]
            self.assertEqual(starts[0], 0)
            self.assertTrue(0 < starts[1] < starts[2], starts)
            self.check_series(last, straight, 1e-6)

    def test_sigterm_to_one_rank_stops_all_with_one_checkpoint(self):
        run = pretrain(steps=100_000)
        for stopped in (0, 1):
            gang = self.gang(f"stopped{stopped}", run, 2, checkpoint_interval_s=10_000)
            self.assertTrue(gang.first.wait_for("metric", count=5))
            gang.ranks[stopped].stop()
            self.assertEqual(gang.finish(), [STOPPED] * 2, gang.errors)
            self.assertEqual(len([e for e in gang.first.events() if e["event"] == "checkpoint"]), 1)
            self.assertFalse(any((gang.ranks[1].directory / "checkpoint").glob("step-*")))

    def test_a_rank_that_waits_for_others_can_be_stopped(self):
        waiting = [Attempt(self.path / f"{rank}", pretrain(), {"inputs": self.inputs, "rank": rank, "ranks": 2,
                                                               "rendezvous": str(self.path / f"word-{rank}")})
                   for rank in (0, 1)]
        self.assertTrue(waiting[0].wait_for("rendezvous"))
        word = [e for e in waiting[0].events() if e["event"] == "rendezvous"][0]["value"]
        self.assertEqual((self.path / "word-0").read_text(), word)
        self.assertIn("key", json.loads(word))
        for attempt in waiting:
            attempt.wait_until_it_can_be_stopped()
            self.assertEqual(attempt.stop(), STOPPED, attempt.errors)

    # --- ranks that do not meet

    def rank_of(self, rank, ranks, rendezvous):
        return Attempt(self.path / f"{rank}", pretrain(), {"inputs": self.inputs, "rank": rank, "ranks": ranks,
                                                           "rendezvous": str(rendezvous), "peer_timeout_s": 1})

    def test_a_rank_that_cannot_reach_the_first_gives_up(self):
        with socket.socket() as deaf:  # bound, but nobody listens
            deaf.bind(("127.0.0.1", 0))
            port = deaf.getsockname()[1]
            word = self.path / "word"
            word.write_text(json.dumps({"addresses": ["127.0.0.1"], "port": port, "key": "k"}))
            attempt = self.rank_of(1, 2, word)
            self.assertEqual(attempt.finish(), COLLECTIVE_TIMEOUT, attempt.errors)
        self.assertIn(f"in vain for rank 0 to answer at 127.0.0.1:{port}: is the --address", attempt.errors)

    def test_the_first_names_who_is_missing(self):
        first, second = (self.rank_of(rank, 3, self.path / "word") for rank in (0, 1))
        self.assertEqual([first.finish(), second.finish()], [COLLECTIVE_TIMEOUT, PEER_LOST], first.errors + second.errors)
        self.assertIn("in vain for rank 2 to connect to 127.0.0.1:", first.errors)

    # --- bad input

    def test_what_cannot_be_divided_is_a_configuration_error(self):
        for execution, message in (({"rank": 0, "ranks": 10, "rendezvous": str(self.path / "r")}, "batch_sequences is 9"),
                                   ({"rank": 2, "ranks": 2, "rendezvous": str(self.path / "r")}, "execution.rank"),
                                   ({"rank": 0, "ranks": 2}, "execution.rendezvous is missing")):
            attempt = Attempt(self.path / "bad", pretrain(), {"inputs": self.inputs, **execution})
            self.assertEqual(attempt.finish(), 42, attempt.errors)
            self.assertIn(message, attempt.errors)


if __name__ == "__main__":
    unittest.main()
