#!/usr/bin/env python3
"""allo-trainer as its worker sees it: prepare, pretrain and finetune, stopped and killed in the middle."""
import hashlib
import json
import math
import os
import pathlib
import resource
import shutil
import signal
import struct
import tempfile
import unittest

import small_data
from trainer_process import Attempt, result, series

VOCABULARY = 280
MODEL = {"architecture": "transformer", "options": {},
         "shape": {"encoder_layers": 1, "decoder_layers": 1, "d_model": 32, "d_ff": 64, "heads": 2, "d_kv": 16,
                   "vocabulary": VOCABULARY}}
PRETRAIN = {"kind": "pretrain", "trainer": "builtin", "model": MODEL, "data": "d" * 64,
            "objective": {"name": "span_corruption", "input_length": 32, "noise_density": 0.15, "mean_span_length": 3.0},
            "optimizer": {"name": "adafactor", "learning_rate": 0.05, "schedule": "inverse_sqrt", "warmup_steps": 50},
            "batch_sequences": 8, "steps": 400, "seed": 0, "evaluation": {"examples": 64, "every_steps": 150}}
FINETUNE = {"kind": "finetune", "trainer": "builtin", "model": MODEL, "data": "d" * 64, "parent": "p" * 64,
            "tasks": [{"name": "wordnet_pos"}], "mixture": {"cap": 0}, "input_length": 48, "target_length": 12,
            "optimizer": {"name": "adafactor", "learning_rate": 0.01, "schedule": "constant"},
            "batch_sequences": 16, "steps": 150, "dropout": 0.1, "seed": 0}


def tensor_names(path):
    with open(path, "rb") as file:
        length, = struct.unpack("<Q", file.read(8))
        return {n: e["shape"] for n, e in json.loads(file.read(length)).items() if n != "__metadata__"}


def sha256(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


class TrainerProcessTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="allometry-process-")
        cls.addClassCleanup(folder.cleanup)
        cls.root = pathlib.Path(folder.name)
        raw = small_data.RawFiles(cls.root / "raw")
        cls.prepared = Attempt(cls.root / "prepare", small_data.prepare_run(raw, vocabulary=VOCABULARY),
                               {"files": raw.paths})
        assert cls.prepared.finish() == 0, cls.prepared.errors
        cls.inputs = {"data": str(cls.root / "prepare/data")}
        cls.pretrained = Attempt(cls.root / "pretrain", PRETRAIN, {"inputs": cls.inputs})
        assert cls.pretrained.finish() == 0, cls.pretrained.errors
        cls.parents = {**cls.inputs, "model": str(cls.root / "pretrain/model")}

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="allometry-case-", dir=self.root)
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name)

    def attempt(self, run, name="run", inputs=None, **execution):
        return Attempt(self.path / name, run, {"inputs": inputs or self.inputs, **execution})

    def check_ending(self, run, code, message, **keywords):
        attempt = self.attempt(run, **keywords)
        self.assertEqual(attempt.finish(), code, attempt.errors)
        self.assertIn(message, attempt.errors)
        self.assertIsNone(result(attempt))
        return attempt

    # --- what a run leaves

    def test_prepare_leaves_its_data(self):
        events = self.prepared.events()
        self.assertEqual(events[0]["event"], "start")
        self.assertEqual(result(self.prepared)["outputs"], {"data": "data"})
        self.assertTrue((self.root / "prepare/data/data.json").exists())

    def test_pretraining_tells_everything_and_learns(self):
        events = self.pretrained.events()
        self.assertEqual([events[0]["event"], events[-1]["event"]], ["start", "result"])
        self.assertEqual(sum(e["event"] in ("start", "result") for e in events), 2)
        self.assertEqual((events[0]["device"], events[0]["precision"], events[0]["resumed_step"]), ("cpu", "fp32", 0))
        self.assertIn("commit", events[0]["provenance"])
        progress = [e for e in events if e["event"] == "progress"]
        self.assertEqual((progress[-1]["step"], progress[-1]["steps"]), (400, 400))
        steps = [e["step"] for e in progress]
        self.assertEqual(steps, sorted(steps))
        self.assertEqual(sorted(series(events, "valid/loss")), [150, 300, 400])
        self.assertEqual(len(series(events, "train/loss")), 100)
        metrics = result(self.pretrained)["metrics"]
        self.assertEqual(metrics["validation_loss"], series(events, "valid/loss")[400])
        self.assertLess(metrics["text_loss"], metrics["unigram_loss"] - 0.3)
        self.assertLess(metrics["unigram_loss"], math.log(VOCABULARY))
        self.assertTrue(math.isfinite(metrics["swapped_inputs_loss"]))
        self.assertNotEqual(metrics["swapped_inputs_loss"], metrics["validation_loss"])
        self.assertEqual(metrics["training_flops"], 3 * metrics["forward_flops"] * 8 * 400)
        self.assertEqual(metrics["tokens"], 32 * 8 * 400)
        for name in ("device_seconds", "tokens_per_second", "peak_memory_bytes", "parameters"):
            self.assertGreater(metrics[name], 0)
        self.assertLessEqual(metrics["data_wait_fraction"], 1)

    def test_pretraining_reports_what_its_measures_are_over(self):
        ending = result(self.pretrained)
        report, metrics = ending["report"], ending["metrics"]
        self.assertEqual(report["validation_set"]["name"], "text/valid/span_corruption-32-8")
        self.assertEqual(report["validation_set"]["examples"], 64)
        self.assertEqual(len(report["validation_set"]["sha256"]), 64)
        self.assertEqual((report["kernels"], report["graph_launches"]), (False, 0))  # on a CPU
        self.assertEqual(report["bits_per_byte"], {"over": "masked text", "comparable_across_tokenizers": False})
        part, = report["parts"]
        self.assertEqual((part["name"], part["rate"], part["rows"]), ("text", 1, 8 * 400))
        self.assertEqual(part["epochs"], report["epochs"])
        self.assertEqual(part["epochs"], part["rows"] / part["sequences"])
        # A token is at least one byte here, and on average no more than ten.
        bits_per_token = metrics["text_loss"] / math.log(2)
        self.assertLess(metrics["bits_per_byte"], bits_per_token)
        self.assertGreater(metrics["bits_per_byte"], bits_per_token / 10)

    def test_other_objectives_train(self):
        for objective, over in (({"name": "prefix_lm", "input_length": 32, "target_length": 16}, "text of the targets"),
                                ({"name": "bert", "input_length": 32}, "masked text")):
            run = {**PRETRAIN, "objective": objective, "join": "none", "steps": 60,
                   "evaluation": {"examples": 32, "every_steps": 0}}
            attempt = self.attempt(run, name=objective["name"])
            self.assertEqual(attempt.finish(), 0, attempt.errors)
            losses = series(attempt.events(), "train/loss")
            ending = result(attempt)
            report = ending["report"]
            self.assertLess(ending["metrics"]["validation_loss"], losses[min(losses)] - 0.3, objective["name"])
            self.assertTrue(report["validation_set"]["name"].endswith("-unjoined"))
            self.assertEqual(report["bits_per_byte"],
                             {"over": over, "comparable_across_tokenizers": objective["name"] == "prefix_lm"})
            self.assertEqual(report["parts"][0]["rows"], 60 * 8)
            self.assertEqual(report["target_length"], objective.get("target_length", 32))
            self.assertLess(report["target_tokens"], 60 * 8 * report["target_length"], "padding is no target")
            self.assertGreater(report["target_tokens"], 60 * 8)

    def test_the_output_model_is_what_a_child_needs(self):
        folder = self.root / "pretrain/model"
        self.assertEqual(sorted(p.name for p in folder.iterdir()), ["model.json", "model.safetensors"])
        model = json.loads((folder / "model.json").read_text())
        self.assertEqual((model["architecture"], model["shape"]), ("transformer", MODEL["shape"]))
        shapes = tensor_names(folder / "model.safetensors")
        self.assertEqual(sum(math.prod(s) for s in shapes.values()), result(self.pretrained)["metrics"]["parameters"])

    def test_finetuning_learns_the_task_and_shuffled_labels_do_not(self):
        true = self.attempt(FINETUNE, "true", self.parents)
        self.assertEqual(true.finish(), 0, true.errors)
        score, = result(true)["scores"]
        self.assertEqual((score["task"], score["metric"], score["majority"]), ("wordnet_pos", "accuracy", 0.25))
        self.assertGreater(score["value"], 0.6)
        self.assertFalse(score["at_chance"])
        self.assertEqual(series(true.events(), "valid/wordnet_pos")[150], score["value"])
        shuffled = self.attempt({**FINETUNE, "shuffle_labels": True}, "shuffled", self.parents)
        self.assertEqual(shuffled.finish(), 0, shuffled.errors)
        self.assertTrue(result(shuffled)["scores"][0]["at_chance"], result(shuffled)["scores"])

    def test_finetuning_keeps_every_prediction(self):
        run = {**FINETUNE, "tasks": [{"name": "wordnet_pos"}, {"name": "say", "max_valid": 20}], "steps": 20}
        attempt = self.attempt(run, inputs=self.parents, keep_final=False)
        self.assertEqual(attempt.finish(), 0, attempt.errors)
        self.assertEqual(result(attempt)["outputs"], {"predictions": "predictions"}, "kept without the model too")
        pos, say = result(attempt)["scores"]
        self.assertEqual((say["benchmark"], set(say["metrics"]), say["decoding"]), ("own", {"exact_match", "f1"}, "greedy"))
        self.assertIsNone(say["majority"])
        self.assertFalse(say["selected_on_test"])
        rows = [json.loads(line) for line in (attempt.directory / "predictions/say.jsonl").read_text().splitlines()]
        self.assertEqual([row["id"] for row in rows], [f"row-{i}" for i in range(20)])
        for row in rows:
            self.assertEqual(row["gold"][1], "the " + row["gold"][0])
        right = sum(row["prediction"] in row["gold"] for row in rows)
        self.assertEqual(say["metrics"]["exact_match"], right / 20)
        rows = [json.loads(line) for line in (attempt.directory / "predictions/wordnet_pos.jsonl").read_text().splitlines()]
        self.assertEqual(sum(row["prediction"] == row["gold"] for row in rows) / len(rows), pos["value"])

    def test_tasks_prepared_apart_from_their_text_train_the_same(self):
        raw = small_data.RawFiles(self.path / "raw")
        together = small_data.prepare_run(raw, vocabulary=VOCABULARY)
        apart = {"kind": "prepare", "data": "t" * 64, "tasks": together["tasks"]}
        tasks = self.attempt(apart, "tasks", files=raw.paths)  # the text of before
        self.assertEqual(tasks.finish(), 0, tasks.errors)
        self.assertEqual(result(tasks)["metrics"]["train_tokens"], 0)
        folder = str(self.path / "tasks/data")
        run = {**FINETUNE, "steps": 10}
        losses = []
        for name, data in (("one", self.inputs["data"]), ("two", folder)):
            attempt = self.attempt(run, name, {**self.parents, "data": data})
            self.assertEqual(attempt.finish(), 0, attempt.errors)
            losses.append(series(attempt.events(), "loss"))
        self.assertEqual(losses[0], losses[1])
        self.check_ending(PRETRAIN, 43, "there is no text to pretrain on", name="textless", inputs={"data": folder})
        self.check_ending(apart, 43, "execution.inputs has no 'data'", name="alone", inputs={"model": folder},
                          files=raw.paths)

    def test_rank_classification_answers_with_a_choice_always(self):
        run = {**FINETUNE, "tasks": [{"name": "wordnet_pos"}, {"name": "say"}], "steps": 2, "decoding": "rank"}
        attempt = self.attempt(run, inputs=self.parents)
        self.assertEqual(attempt.finish(), 0, attempt.errors)
        pos, say = result(attempt)["scores"]
        self.assertEqual((pos["decoding"], pos["unparsed"]), ("rank", 0))
        self.assertEqual(say["decoding"], "greedy", "there is nothing to choose from")
        run["tasks"][1]["decoding"] = "rank"
        self.check_ending(run, 42, "'say' has no choices to rank", name="wrong", inputs=self.parents)

    def test_selection_by_what_was_held_out(self):
        run = {**FINETUNE, "steps": 40, "select": "best", "holdout": 30, "evaluation": {"every_steps": 10}}
        attempt = self.attempt(run, inputs=self.parents)
        self.assertEqual(attempt.finish(), 0, attempt.errors)
        held_out = series(attempt.events(), "holdout/wordnet_pos")
        self.assertEqual(set(held_out), {10, 20, 30, 40})
        report = result(attempt)["report"]
        self.assertEqual(held_out[report["selected_step"]], max(held_out.values()))
        tasks = report["tasks"]["wordnet_pos"]
        self.assertEqual(tasks["held_out"], 30)
        self.assertFalse(result(attempt)["scores"][0]["selected_on_test"])
        on_test = self.attempt({**run, "holdout": 0}, "on_test", self.parents)
        self.assertEqual(on_test.finish(), 0, on_test.errors)
        self.assertTrue(result(on_test)["scores"][0]["selected_on_test"])
        self.assertEqual(result(on_test)["report"]["tasks"]["wordnet_pos"]["train_examples"], tasks["train_examples"] + 30)

    def test_early_stop_ends_what_gets_no_better(self):
        run = {**FINETUNE, "steps": 100, "select": "best", "holdout": 30, "early_stop": 2, "evaluation": {"every_steps": 5},
               "optimizer": {"name": "adafactor", "learning_rate": 0.0, "schedule": "constant"}}
        attempt = self.attempt(run, inputs=self.parents)
        self.assertEqual(attempt.finish(), 0, attempt.errors)
        self.assertTrue(result(attempt)["report"]["stopped_early"])
        self.assertEqual(result(attempt)["metrics"]["steps"], 15, "the best at 5, and two more evaluations")
        self.assertEqual(result(attempt)["report"]["selected_step"], 5)

    def test_no_outputs_when_nobody_wants_them(self):
        attempt = self.attempt({**PRETRAIN, "steps": 2}, keep_final=False)
        self.assertEqual(attempt.finish(), 0, attempt.errors)
        self.assertEqual(result(attempt)["outputs"], {})
        self.assertFalse((attempt.directory / "model").exists())

    def test_bf16_trains_too(self):
        attempt = self.attempt({**PRETRAIN, "steps": 100}, precision="bf16")
        self.assertEqual(attempt.finish(), 0, attempt.errors)
        self.assertEqual(attempt.events()[0]["precision"], "bf16")
        self.assertLess(result(attempt)["metrics"]["validation_loss"], math.log(VOCABULARY))

    def test_equal_runs_give_equal_bytes_and_other_seeds_do_not(self):
        run = {**PRETRAIN, "steps": 20}
        hashes = []
        for name, changed in (("a", {}), ("b", {}), ("c", {"seed": 1})):
            attempt = self.attempt({**run, **changed}, name)
            self.assertEqual(attempt.finish(), 0, attempt.errors)
            hashes.append(sha256(attempt.directory / "model/model.safetensors"))
        self.assertEqual(hashes[0], hashes[1])
        self.assertNotEqual(hashes[0], hashes[2])

    def test_a_micro_batch_changes_rounding_only(self):
        run = {**PRETRAIN, "steps": 4}
        whole, small = (self.attempt(run, name, **more) for name, more in (("whole", {}), ("small", {"micro_batch": 3})))
        for attempt in (whole, small):
            self.assertEqual(attempt.finish(), 0, attempt.errors)
        for name in ("validation_loss", "text_loss", "unigram_loss", "swapped_inputs_loss"):
            self.assertAlmostEqual(result(small)["metrics"][name], result(whole)["metrics"][name], delta=1e-4, msg=name)

    # --- stopping, killing, going on

    def check_equal(self, attempt, straight):
        """Same weights, byte for byte, same series and measures."""
        self.assertEqual(sha256(attempt.directory / "model/model.safetensors"),
                         sha256(straight.directory / "model/model.safetensors"))
        for name in ("train/loss", "train/grad_norm", "valid/loss"):
            self.assertEqual(series(attempt.events(), name), series(straight.events(), name), name)
        for name in ("validation_loss", "text_loss", "unigram_loss", "swapped_inputs_loss"):
            self.assertEqual(result(attempt)["metrics"].get(name), result(straight)["metrics"].get(name))

    def test_sigterm_leaves_a_checkpoint_and_the_run_goes_on_bit_equal(self):
        attempt = self.attempt(PRETRAIN, checkpoint_interval_s=0)
        self.assertTrue(attempt.wait_for("checkpoint", condition=lambda e: e["step"] >= 5))
        self.assertEqual(attempt.stop(), 40, attempt.errors)
        checkpoints = [e for e in attempt.events() if e["event"] == "checkpoint"]
        self.assertTrue((attempt.directory / checkpoints[-1]["path"] / "checkpoint.json").exists())
        resumed = self.attempt(PRETRAIN)
        self.assertEqual(resumed.finish(), 0, resumed.errors)
        starts = [e for e in resumed.events() if e["event"] == "start"]
        self.assertEqual([s["resumed_step"] for s in starts], [0, checkpoints[-1]["step"]])
        self.check_equal(resumed, self.pretrained)

    def test_kill_9_at_any_moment_costs_time_only(self):
        killed = 0
        for step in (20, 90, 170, 260, 330):
            attempt = self.attempt(PRETRAIN, checkpoint_interval_s=0)
            if attempt.wait_for("checkpoint", condition=lambda e: e["step"] >= step):
                killed += attempt.kill() == -9
        self.assertGreater(killed, 2)
        self.assertLessEqual(len(list((attempt.directory / "checkpoint").glob("step-*"))), 3)
        resumed = self.attempt(PRETRAIN)
        self.assertEqual(resumed.finish(), 0, resumed.errors)
        self.check_equal(resumed, self.pretrained)

    def test_a_torn_checkpoint_is_skipped_with_a_reason(self):
        attempt = self.attempt(PRETRAIN, checkpoint_interval_s=0)
        self.assertTrue(attempt.wait_for("checkpoint", count=30))
        attempt.kill()
        folders = sorted((attempt.directory / "checkpoint").glob("step-*"), key=lambda p: int(p.name[5:]))
        os.truncate(folders[-1] / "tensors.safetensors", 1000)
        resumed = self.attempt(PRETRAIN)
        self.assertEqual(resumed.finish(), 0, resumed.errors)
        self.assertIn("checkpoint skipped", resumed.errors)
        self.assertIn(folders[-1].name, resumed.errors)
        self.check_equal(resumed, self.pretrained)

    def test_another_machine_goes_on_from_an_uploaded_checkpoint(self):
        first = self.attempt(PRETRAIN, "first", checkpoint_interval_s=0)
        self.assertTrue(first.wait_for("checkpoint", count=40))
        self.assertEqual(first.stop(), 40)
        newest = [e for e in first.events() if e["event"] == "checkpoint"][-1]
        shutil.copytree(first.directory / newest["path"], self.path / "uploaded")
        shutil.rmtree(first.directory)
        second = self.attempt(PRETRAIN, "second", resume=str(self.path / "uploaded"))
        self.assertEqual(second.finish(), 0, second.errors)
        self.assertEqual(second.events()[0]["resumed_step"], newest["step"])
        straight, resumed = (series(a.events(), "train/loss") for a in (self.pretrained, second))
        self.assertEqual(resumed, {s: v for s, v in straight.items() if s in resumed})
        self.assertEqual(sha256(second.directory / "model/model.safetensors"),
                         sha256(self.pretrained.directory / "model/model.safetensors"))

    def test_finetuning_with_dropout_goes_on_bit_equal(self):
        for select in ("last", "best"):
            run = {**FINETUNE, "select": select, "evaluation": {"every_steps": 25}}
            straight = self.attempt(run, "straight" + select, self.parents)
            self.assertEqual(straight.finish(), 0, straight.errors)
            killed = self.attempt(run, "killed" + select, self.parents, checkpoint_interval_s=0)
            self.assertTrue(killed.wait_for("checkpoint", count=60))
            killed.kill()
            resumed = self.attempt(run, "killed" + select, self.parents)
            self.assertEqual(resumed.finish(), 0, resumed.errors)
            self.check_equal(resumed, straight)
            self.assertEqual(result(resumed)["scores"], result(straight)["scores"])

    def test_prepare_stops_on_request_and_leaves_nothing_half_made(self):
        raw = small_data.RawFiles(self.path / "raw")
        run = small_data.prepare_run(raw, corpus=small_data.text(6000), vocabulary=VOCABULARY)
        stopped = Attempt(self.path / "prepare", run, {"files": raw.paths})
        self.assertTrue(stopped.wait_for("progress"))
        code = stopped.stop()
        self.assertIn(code, (0, 40), stopped.errors)
        self.assertEqual((self.path / "prepare/data/data.json").exists(), code == 0)
        again = Attempt(self.path / "prepare", run, {"files": raw.paths})
        self.assertEqual(again.finish(), 0, again.errors)

    def test_prepare_stops_at_once_while_sentencepiece_trains(self):
        raw = small_data.RawFiles(self.path / "raw")
        run = small_data.prepare_run(raw, corpus=small_data.text(6000), vocabulary=VOCABULARY)
        stopped = Attempt(self.path / "prepare", run, {"files": raw.paths})
        self.assertTrue(stopped.wait_for("progress", condition=lambda e: e["stage"] == "train tokenizer"))
        self.assertEqual(stopped.stop(), 40, stopped.errors)
        self.assertEqual([e for e in stopped.events() if e.get("stage") == "tokenize"], [])
        again = Attempt(self.path / "prepare", run, {"files": raw.paths})
        self.assertEqual(again.finish(), 0, again.errors)

    # --- every other exit code

    def test_divergence_is_44(self):
        run = {**PRETRAIN, "optimizer": {"name": "adamw", "learning_rate": 10.0, "schedule": "constant"}}
        self.check_ending(run, 44, "loss")

    def test_configuration_errors_are_42(self):
        small = {**MODEL, "shape": {**MODEL["shape"], "vocabulary": 128}}
        self.check_ending({**PRETRAIN, "model": small}, 42, "run.model.shape.vocabulary is 128", name="vocabulary")
        other = {**MODEL, "shape": {**MODEL["shape"], "d_ff": 32}}
        self.check_ending({**FINETUNE, "model": other}, 42, "the parent's shape", name="parent", inputs=self.parents)
        self.check_ending({**FINETUNE, "tasks": ["wordnet_po"]}, 42, "wordnet_pos", name="task", inputs=self.parents)
        self.check_ending({**FINETUNE, "target_length": 2}, 42, "label", name="label", inputs=self.parents)

    def test_data_errors_are_43(self):
        long = {**PRETRAIN, "objective": {"input_length": 20000, "mean_span_length": 100.0}}
        self.check_ending(long, 43, "sequence", name="short")
        damaged = self.path / "damaged"
        shutil.copytree(self.root / "prepare/data", damaged)
        os.truncate(damaged / "train-00000.tokens", 11)
        self.check_ending(PRETRAIN, 43, "train", name="torn", inputs={"data": str(damaged)})
        broken = self.path / "broken"
        shutil.copytree(self.root / "pretrain/model", broken)
        os.truncate(broken / "model.safetensors", 500)
        self.check_ending(FINETUNE, 43, "safetensors", name="model", inputs={**self.inputs, "model": str(broken)})
        raw = small_data.RawFiles(self.path / "raw")
        empty = Attempt(self.path / "empty", small_data.prepare_run(raw, corpus="", tasks=False), {"files": raw.paths})
        self.assertEqual(empty.finish(), 43, empty.errors)

    def within_8_gib(self, run, name):
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, hard))  # inherited by the trainer
        try:
            return self.attempt(run, name)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

    def test_a_step_that_memory_does_not_hold_is_taken_in_halves(self):
        attempt = self.within_8_gib({**PRETRAIN, "batch_sequences": 65536, "steps": 1}, "halved")
        self.assertEqual(attempt.finish(), 0, attempt.errors)
        self.assertIn("micro-batch halved", attempt.errors)
        self.assertLess(result(attempt)["report"]["micro_batch"], 65536)

    def test_out_of_memory_is_45(self):
        large = {**MODEL, "shape": {**MODEL["shape"], "d_model": 1 << 14, "d_ff": 1 << 19}}  # a tensor of 32 GiB
        attempt = self.within_8_gib({**PRETRAIN, "model": large, "steps": 1}, "large")
        self.assertEqual(attempt.finish(), 45, attempt.errors)
        self.assertIn("memory", attempt.errors)

    def test_a_full_disk_is_a_crash_that_can_be_tried_again(self):
        attempt = self.attempt({**PRETRAIN, "steps": 20})
        self.assertEqual(attempt.finish(), 0, attempt.errors)
        limited = self.path / "limited"
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # inherited: a write then fails as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, hard))
        try:
            first = Attempt(limited, {**PRETRAIN, "steps": 20}, {"inputs": self.inputs, "checkpoint_interval_s": 0},
                            restore_signals=False)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, old)
        self.assertEqual(first.finish(), 1, first.errors)
        self.assertIn("cannot write", first.errors)
        self.assertEqual([p for p in limited.rglob("*.safetensors")], [])
        second = Attempt(limited, {**PRETRAIN, "steps": 20}, {"inputs": self.inputs})
        self.assertEqual(second.finish(), 0, second.errors)
        self.check_equal(second, attempt)


if __name__ == "__main__":
    unittest.main()
