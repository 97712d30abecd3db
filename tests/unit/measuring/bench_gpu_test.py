#!/usr/bin/env python3
"""bench/gpu/gpu.py where there is no GPU, and what of it needs none."""
import ctypes
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "bench/gpu"))
import curves  # noqa: E402
import kernel_module  # noqa: E402
import kernel_trace  # noqa: E402
import rows  # noqa: E402
import speed  # noqa: E402
import trainer_process  # noqa: E402

HEADER = """
// A comment with struct Fake { int x; };
namespace kernels {
enum class Side : int { kLeft, kRight };
struct Strides {
  int64_t batch = 0, head = 0;
};
template <typename T>
struct Rows {
  T* data = nullptr;  // of T
  Strides strides;
};
struct SumArgs {
  Side side = Side::kRight;
  const void* x = nullptr;
  const float *scale = nullptr;
  Rows<const Bf16> rows;
  int64_t n = 0, d = 7;
  float epsilon = 1e-6f;
  bool reversed = false;
};
constexpr int64_t Parts(int64_t n) { return n / 2; }
struct KernelTable {
  int version = 0;
  size_t bytes = 0;
  const char* (*last_error)() = nullptr;
  void (*sum)(Stream, DataType, const SumArgs&) = nullptr;
  void (*advance)(Stream, int64_t* step) = nullptr;
};
}
"""


class WithoutGpu(unittest.TestCase):
    def gpu(self, folder, *arguments):
        output = pathlib.Path(folder) / "gpu.json"
        done = subprocess.run([sys.executable, str(ROOT / "bench/gpu/gpu.py"), "-o", str(output), *arguments], capture_output=True, text=True,
                              env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout, json.loads(output.read_text())

    def test_every_item_says_why_it_is_skipped(self):
        with tempfile.TemporaryDirectory() as folder:
            said, result = self.gpu(folder, "--only", "1", "2", "3", "4", "resume", "memory", "--trainer", "/none", "--data", "/none")
            self.assertEqual({str(row["item"]) for row in result["rows"]}, {"1", "2", "3", "4", "resume", "memory"})
            for row in result["rows"]:
                self.assertTrue(row["skipped"])
                self.assertIn(f"item {row['item']}, {row['name']}: not measured: {row['skipped']}", said)
            self.assertEqual([r["name"] for r in result["rows"] if r["item"] == 4], list(trainer_process.ARCHITECTURES))
            again = self.gpu(folder, "--only", "1")[1]
            self.assertEqual(len(again["rows"]), len(result["rows"]))

    def test_rows_are_kept_unless_measured_again(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "rows.json"
            here = {"device": "a", "version": "1"}
            first = rows.Rows(path, here)
            first.put(1, "base", {"value": 5})
            first.skip(1, "base", "later, the time was up")
            first.skip(1, "tiny", "the time was up")
            second = rows.Rows(path, here)
            self.assertTrue(second.has(1, "base"))
            self.assertFalse(second.has(1, "tiny"))
            self.assertEqual(second.find(1, "base")["value"], 5)
            self.assertFalse(rows.Rows(path, {**here, "device": "b"}).has(1, "base"))
            self.assertFalse(rows.Rows(path, {**here, "version": "2"}).has(1, "base"))
            third = rows.Rows(path, here, again=True)
            self.assertFalse(third.has(1, "base"))
            third.put(1, "base", {"value": 6})
            self.assertTrue(third.has(1, "base"))
            self.assertEqual([r["name"] for r in json.loads(path.read_text())["rows"]], ["base", "tiny"])


SMALL_DEVICE = """#!/usr/bin/env python3
import json, os, sys, time
config = json.load(open(sys.argv[2]))
if config["execution"]["micro_batch"] > 4:
    sys.exit(45)
events = open(os.environ["ALLOMETRY_EVENTS"], "a")
for step in range(1, 4):
    events.write(json.dumps({"event": "metric", "step": 10 * step, "values": {"train/loss": 5.0 - step}}) + "\\n")
    events.flush()
    time.sleep(0.02)
events.write(json.dumps({"event": "result", "metrics": {"steps": config["run"]["steps"]}, "report": {"micro_batch": 2}}) + "\\n")
events.flush()
"""


class Processes(unittest.TestCase):
    def trainer(self, folder, script):
        program = pathlib.Path(folder) / "trainer.py"
        program.write_text(script)
        program.chmod(0o755)
        return trainer_process.Trainer(program, folder, folder)

    def test_the_batch_is_halved_until_it_fits(self):
        with tempfile.TemporaryDirectory() as folder:
            trainer = self.trainer(folder, SMALL_DEVICE)
            outcome, micro = trainer.fitting("run", "glu", {}, "cpu", "bf16", batch=16, length=32, steps=30)
            self.assertEqual(micro, 2, "halved once more by the trainer itself")
            self.assertEqual(outcome.losses(), {10: 4.0, 20: 3.0, 30: 2.0})
            self.assertEqual(outcome.metrics(), {"steps": 30})
            seconds = outcome.seconds_per_step()
            self.assertEqual(len(seconds), 2)
            self.assertGreater(min(seconds), 0)
            with self.assertRaises(trainer_process.Failed):
                outcome.seconds_per_step(3)
            self.assertFalse((pathlib.Path(folder) / "run").exists())

    def test_another_end_is_told(self):
        with tempfile.TemporaryDirectory() as folder:
            trainer = self.trainer(folder, "#!/usr/bin/env python3\nimport sys\nsys.exit('no such shape')\n")
            with self.assertRaisesRegex(trainer_process.Failed, "exit code 1: no such shape"):
                trainer.fitting("run", "glu", {}, "cpu", "bf16", batch=16, length=32, steps=30)


class Judgements(unittest.TestCase):
    def test_curves_are_judged_by_what_seeds_differ_by(self):
        cpu = {seed: [8.0 - 0.01 * step + 0.1 * seed for step in range(curves.STEPS)] for seed in curves.SEEDS}
        near = curves.judge([x + 0.004 for x in cpu[0]], cpu, 0)
        self.assertAlmostEqual(near["seeds_sd"], 0.1)
        self.assertAlmostEqual(near["seeds_sd_of_means"], 0.1)
        self.assertAlmostEqual(near["mean_gap"], 0.004)
        self.assertTrue(all(goal["hit"] for goal in near["goals"]))
        far = curves.judge([x + 0.06 for x in cpu[0]], cpu, 0)
        self.assertEqual([goal["hit"] for goal in far["goals"]], [False, False])

    def test_goals_without_a_side_are_no_hits(self):
        class Of:
            batch, length, figures = 128, 512, speed.Speed.figures
        row = {"peak_flops": [1e15], "forward_flops": 2e11, "sides": {"allometry": {"seconds_per_step": [0.2, 0.1, 0.2]},
                                                                      "eager": {"seconds_per_step": [0.4, 0.5]}, "compile": {"skipped": "slow"}}}
        speed.Speed.compare(Of(), row, "base")
        self.assertAlmostEqual(row["sides"]["allometry"]["share_of_peak"], 3 * 2e11 * 128 / 0.2 / 1e15)
        self.assertAlmostEqual(row["times"]["eager"], 3.5)
        self.assertEqual([(g["value"] is None, g["hit"]) for g in row["goals"]], [(False, False), (True, False)])

    def test_time_is_divided_by_kind_of_kernel(self):
        records = [(0.0, 4.0, "nvjet_hsh_128x128"), (1.0, 3.0, "void at::native::vectorized_elementwise_kernel<4>"),
                   (6.0, 7.0, "allometry::NormForwardKernel"), (7.0, 7.5, "[copy]"), (7.5, 8.0, "flash_fwd_kernel")]
        self.assertEqual(kernel_trace.busy(records), 6.0)
        shares = kernel_trace.shares(records, 0.0, 10.0, 2)
        self.assertAlmostEqual(shares["idle"], 0.4)
        self.assertAlmostEqual(shares["outside_products"], 1 - 0.45)
        self.assertEqual(set(shares["kinds"]), {"products", "elementwise", "norms", "copies", "attention"})
        self.assertIn("idle", shares["bound_by"])
        self.assertIn("products", kernel_trace.shares(records, 0.0, 8.0, 2)["bound_by"])

    def test_a_trace_is_cut_to_the_steps(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "trace"
            with self.assertRaises(kernel_trace.NoTrace):
                kernel_trace.read(path, 0, 1)
            path.write_text("1000000000\t2000000000\ta\tb\n3000000000\t5000000000\tc\n6000000000\t70")
            self.assertEqual(kernel_trace.read(path, 4.0, 6.0), [(4.0, 5.0, "c")])


class Headers(unittest.TestCase):
    def headers(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        root = pathlib.Path(folder.name)
        (root / "kernels").mkdir()
        (root / "layers").mkdir()
        (root / "layers/kernels.h").write_text("enum class Activation { kSigmoid, kGelu };")
        (root / "kernels/kernel_table.h").write_text(HEADER)
        return kernel_module.Headers(root / "kernels")

    def test_structs_are_read_off_the_headers(self):
        headers = self.headers()
        kind = headers.struct("SumArgs")
        self.assertEqual([name for name, _ in kind._fields_], ["side", "x", "scale", "rows", "n", "d", "epsilon", "reversed"])
        self.assertEqual((kind.x.offset, kind.rows.offset, kind.n.offset, kind.reversed.offset), (8, 24, 48, 68))
        self.assertEqual(ctypes.sizeof(kind), 72)
        self.assertEqual([f[1] for f in headers.functions], ["last_error", "sum", "advance"])
        self.assertEqual({k: v for k, (_, v) in headers.defaults["SumArgs"].items() if v},
                         {"side": 1, "d": 7.0, "epsilon": 1e-6})
        with self.assertRaises(kernel_module.Unreadable):
            headers.struct("Missing")

    def test_every_argument_of_the_tree_is_understood(self):
        if not (kernel_module.HEADERS / "kernel_table.h").exists():
            self.skipTest("this tree has no GPU kernels")
        headers = kernel_module.Headers()
        for _, name, arguments in headers.functions:
            for argument in arguments.split(","):
                if "&" in argument:
                    headers.struct(argument.replace("const ", "").split("&")[0].strip())


if __name__ == "__main__":
    unittest.main()
