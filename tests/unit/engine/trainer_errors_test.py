#!/usr/bin/env python3
"""The trainer's command line, and the exit code and message of every mistake that it can be given."""
import copy
import json
import pathlib
import subprocess
import tempfile
import unittest

from trainer_process import TRAINER, Attempt

PRETRAIN = {
    "kind": "pretrain",
    "model": {"architecture": "transformer",
              "shape": {"encoder_layers": 1, "decoder_layers": 1, "d_model": 8, "d_ff": 16, "heads": 1, "d_kv": 8,
                        "vocabulary": 512}},
    "objective": {"input_length": 32}, "batch_sequences": 2, "steps": 2}


class TrainerErrorsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="allometry-trainer-")
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name)

    def command(self, *arguments):
        return subprocess.run([TRAINER, *arguments], capture_output=True, text=True, cwd=self.path, timeout=600)

    def ending(self, run, execution=None):
        attempt = Attempt(self.path / "run", run, execution)
        return attempt.finish(), attempt.errors

    def test_help_version_and_wrong_usage(self):
        self.assertIn("--config", self.command("--help").stdout)
        self.assertRegex(self.command("--version").stdout, r"^allo-trainer \d+\.\d+\.\d+ \(\w+\)\n$")
        for arguments in ([], ["--confg", "x"], ["--config"]):
            process = self.command(*arguments)
            self.assertEqual(process.returncode, 2)
            self.assertIn("allo-trainer --config", process.stderr)

    def test_checkpoint_tools_say_what_they_take(self):
        self.assertIn("checkpoint export DIR", self.command("checkpoint", "--help").stdout)
        for arguments in ([], ["export", "x", "--to", "huggingface"], ["import", "-o", "y"], ["show", "x", "--deep"]):
            process = self.command("checkpoint", *arguments)
            self.assertEqual((process.returncode, process.stdout), (2, ""))
            self.assertIn("checkpoint export DIR", process.stderr)
        for arguments, code, words in ((["show", "x"], 3, "'x' holds no model"), (["import", "x", "-o", "y"], 3, "config.json"),
                                       (["export", "x", "--to", "onnx", "-o", "y"], 2, "it takes huggingface")):
            process = self.command("checkpoint", *arguments)
            self.assertEqual(process.returncode, code)
            self.assertIn(words, process.stderr)

    def test_probe_names_the_cpu_and_the_architectures(self):
        process = self.command("--probe")
        self.assertEqual(process.returncode, 0)
        probe = json.loads(process.stdout)
        self.assertEqual(probe["devices"][0]["device"], "cpu")
        self.assertGreater(probe["devices"][0]["memory_bytes"], 0)
        self.assertIn("transformer", probe["architectures"])
        self.assertTrue(probe["versions"]["libtorch"])

    def test_a_file_that_cannot_be_read(self):
        (self.path / "broken.json").write_text('{"run": ')
        for name in ("absent.json", "broken.json"):
            process = self.command("--config", name)
            self.assertEqual(process.returncode, 42, process.stderr)
            self.assertIn(name, process.stderr)

    def test_configuration_errors_name_the_key(self):
        cases = [
            ("run.kind is 'pretraining'", lambda r: r.update(kind="pretraining")),
            ("run.stepps is unknown", lambda r: r.update(stepps=3)),
            ("run.model.shape.d_model is missing", lambda r: r["model"]["shape"].pop("d_model")),
            ("run.optimizer.name is 'sgd': allowed are adafactor, adamw", lambda r: r.update(optimizer={"name": "sgd"})),
            ("transformer", lambda r: r["model"].update(architecture="transformr")),
        ]
        for message, change in cases:
            run = copy.deepcopy(PRETRAIN)
            change(run)
            code, errors = self.ending(run)
            self.assertEqual(code, 42, errors)
            self.assertIn(message, errors)

    def test_a_missing_input_is_a_configuration_error_and_an_absent_folder_a_data_error(self):
        code, errors = self.ending(PRETRAIN)
        self.assertEqual((code, "execution.inputs.data is missing" in errors), (42, True), errors)
        code, errors = self.ending(PRETRAIN, {"inputs": {"data": str(self.path / "nowhere")}})
        self.assertEqual((code, "nowhere" in errors), (43, True), errors)

    def test_an_empty_data_folder_is_a_data_error(self):
        (self.path / "empty").mkdir()
        code, errors = self.ending(PRETRAIN, {"inputs": {"data": str(self.path / "empty")}})
        self.assertEqual(code, 43, errors)
        self.assertIn("empty", errors)

    def test_a_device_that_is_not_there_is_a_configuration_error(self):
        (self.path / "empty").mkdir()
        for device in ("tpu", "cuda:99x"):
            code, errors = self.ending(PRETRAIN, {"device": device})
            self.assertEqual(code, 42, errors)
            self.assertIn("execution.device", errors)


if __name__ == "__main__":
    unittest.main()
