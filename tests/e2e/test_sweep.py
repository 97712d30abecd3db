"""Sweeps through all processes."""
import csv
import hashlib
import json
import pathlib
import shutil
import signal
import sqlite3
import sys

import pytest

from cluster import ROOT, assert_every_result_accepted_once, build_dir, corpus, fake_spec, module, submit, wait_until


def test_two_workers_share_a_sweep(cluster, tmp_path):
    submit(cluster, fake_spec("shared", orders=3, seeds=4, steps=40, step_ms=10), corpus(tmp_path))
    cluster.start_worker("one", slots=1)
    cluster.start_worker("two", slots=1)
    assert cluster.finished("shared").done == 12
    assert_every_result_accepted_once(cluster, "shared")
    workers = {cell.worker for cell in cluster.cells("shared")}
    assert workers == {"one", "two"}


def test_failures_are_told_and_block_nothing_else(cluster, tmp_path):
    spec = fake_spec("failing", orders=2, seeds=1)
    spec.sizes[1].options.update({"exit_code": 42})
    submit(cluster, spec, corpus(tmp_path))
    cluster.start_worker("worker")
    sweep = cluster.finished("failing")
    assert (sweep.done, sweep.failed) == (1, 1)
    cell = cluster.explain("failing/fake-n2-s0")
    assert len(cell.attempts) == 1, "a configuration error is not tried again"
    assert cell.attempts[0].exit_code == 42
    assert "told to fail" in cell.attempts[0].message
    logs = cluster.allo("logs", "failing/fake-n2-s0").stdout
    assert "told to fail" in logs


def test_a_sweep_file_through_the_command_line(cluster, tmp_path):
    corpus(tmp_path)
    (tmp_path / "sweep.yaml").write_text(
        "name: lines\ntrainer: fake\ndata: {text: [corpus.txt]}\narchitectures: [fake]\n"
        "sizes:\n" + "".join(f"  - {{name: n{i}, options: {{order: {i}}}}}\n" for i in (1, 2, 3)) +
        "seeds: [0, 1]\npretraining: {steps: 20}\n")
    cluster.start_worker("worker")
    done = cluster.allo("submit", tmp_path / "sweep.yaml", "--wait")
    assert done.returncode == 0
    slopes = json.loads(cluster.allo("slopes", "lines", "--format", "json").stdout)
    assert "lines" in json.dumps(slopes) or slopes
    rows = cluster.allo("export", "lines", "--format", "csv").stdout.splitlines()
    assert len(rows) == 7
    again = cluster.allo("submit", tmp_path / "sweep.yaml", "--wait")
    assert again.returncode == 0
    assert all(len(cluster.explain(cell.cell).attempts) == 1 for cell in cluster.cells("lines")), "nothing trains twice"


def test_stopping_a_worker_keeps_its_work(cluster, tmp_path):
    journal = tmp_path / "journal"
    submit(cluster, fake_spec("stopped", orders=1, seeds=1, steps=300, step_ms=20, journal=str(journal)), corpus(tmp_path))
    worker = cluster.start_worker("worker")
    wait_until(lambda: any(cell.step >= 20 for cell in cluster.cells("stopped")) or
               (journal.exists() and "start" in journal.read_text()), "the first steps")
    wait_until(lambda: list((tmp_path / "worker").rglob("checkpoint/state")), "a checkpoint")
    cluster.workers.pop("worker")
    worker.popen.send_signal(signal.SIGINT)
    worker.popen.wait()
    assert "stop" in journal.read_text()
    cluster.start_worker("worker")
    assert cluster.finished("stopped").done == 1
    starts = [int(line.split()[4]) for line in journal.read_text().splitlines() if line.startswith("start")]
    assert len(starts) == 2 and starts[1] > 0, "the second attempt goes on where the first one stopped"


def test_the_ngram_trainer(cluster, tmp_path):
    corpus(tmp_path)
    (tmp_path / "sweep.yaml").write_text(
        "name: words\ntrainer: ngram\ndata: {text: [corpus.txt]}\narchitectures: [{name: witten_bell, options: {vocabulary: 500}}]\n"
        "sizes:\n" + "".join(f"  - {{name: order{i}, options: {{order: {i}}}}}\n" for i in (1, 2, 3)) +
        "seeds: [0, 1]\npretraining: {steps: 10}\n")
    cluster.start_worker("worker", trainers=[f"ngram={sys.executable} {ROOT / 'examples/trainers/ngram.py'}"])
    cluster.allo("submit", tmp_path / "sweep.yaml", "--wait")
    losses = {}
    for row in cluster.sweeps.Export(module("sweep_service_pb2").ExportRequest(sweep="words")):
        cell = json.loads(row.json)
        losses.setdefault(cell["size"], []).append(cell["validation_loss"])
    assert sorted(losses) == ["order1", "order2", "order3"]
    assert min(losses["order1"]) > max(losses["order2"]), "two words of history tell more than one"


GLUE = ["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte"]
SUPERGLUE = ["boolq", "cb", "copa", "multirc", "record", "rte", "wic", "wsc"]


def test_seventeen_scores_and_their_averages(cluster, tmp_path):
    spec = fake_spec("scored", orders=3, seeds=2, scores=1)
    spec.finetuning.steps = 10
    for name in [*(f"glue_{t}" for t in GLUE), *(f"superglue_{t}" for t in SUPERGLUE), "squad", "glue_wnli", "mine"]:
        spec.finetuning.tasks.add(name=name)
    submit(cluster, spec, corpus(tmp_path))
    cluster.start_worker("worker")
    assert cluster.finished("scored").done == 12

    # The tasks' places are 0 ... 7, 8 ... 15 and 16; those behind them enter no average.
    places = {"glue": 3.5, "superglue": 11.5, "squad": 16, "downstream": (3.5 + 11.5 + 16) / 3, "tasks": 8}
    shown = json.loads(cluster.allo("scores", "scored", "--format", "json").stdout)
    averages = {(row["cell"], row["score"]): row["value"] for row in shown["scores"] if row["average"]}
    expected = {(f"fake-n{order}-s{seed}", name): 0.1 * order + 0.01 * seed + 0.001 * place
                for order in (1, 2, 3) for seed in (0, 1) for name, place in places.items()}
    assert averages == pytest.approx(expected)
    assert shown["downstream"] == {"definition": "benchmarks", "parts": ["glue", "superglue", "squad"],
                                   "note": "not in D: glue_wnli, mine"}

    table = cluster.allo("scores", "scored", "--by", "mean").stdout
    lines = {line.split("  ")[0]: line.split()[1:] for line in table.splitlines() if line}
    assert lines["SQuAD"] == ["12.1", "±0.7*", "22.1", "±0.7*", "32.1", "±0.7"]
    assert lines["superglue_wsc"][:2] == ["12.0", "±0.7*!"]
    blocks, notes = table.rsplit("\n\n", 1)
    assert max(map(len, blocks.splitlines())) <= 80
    assert all(sign in notes for sign in ("* at chance", "! the checkpoint", "unparsed", "± standard deviation"))

    # The coordinator and the file tell the same, and the slopes' D is the table's.
    database = cluster.data / "allometry.db"
    assert json.loads(cluster.allo("scores", "--db", database, "--format", "json").stdout) == shown
    slopes = json.loads(cluster.allo("slopes", "scored", "--format", "json").stdout)
    assert (slopes["tasks"], slopes["downstream"]["definition"]) == (["glue", "superglue", "squad"], "benchmarks")
    downstream = next(s for s in slopes["architectures"][0]["slopes"] if (s["x"], s["y"]) == ("flops", "downstream"))
    assert downstream["alpha"] == pytest.approx(0.1), "a tenth a decade was put in"
    assert downstream["points"][0]["y"] == pytest.approx(0.105 + 0.001 * places["downstream"])
    asked = json.loads(cluster.allo("slopes", "scored", "--tasks", "glue", "--format", "json").stdout)
    assert (asked["tasks"], asked["downstream"]["definition"]) == (["glue"], "wanted")
    assert "D mean of glue, superglue, squad" in cluster.allo("slopes", "scored").stdout

    rows = csv.DictReader(cluster.allo("export", "scored", "--what", "scores").stdout.splitlines())
    mrpc = [row for row in rows if (row["task"], row["cell"]) == ("glue_mrpc", "fake-n1-s0-ft")]
    assert len(mrpc) == 1 and float(mrpc[0]["metrics.f1"]) == float(mrpc[0]["metrics.accuracy"]) == pytest.approx(0.102)
    assert mrpc[0]["metrics.matthews"] == "" and mrpc[0]["split"] == "valid"


@pytest.mark.skipif(not (build_dir() / "allo-trainer").exists(), reason="allo-trainer is not built here")
def test_what_a_cell_left_is_fetched_by_its_name(cluster, tmp_path):
    corpus(tmp_path)
    sweep = ("name: kept\ndata: {text: [corpus.txt]}\ntokenizer: {vocabulary: 400}\narchitectures: [transformer]\n"
             "sizes: [{name: a, layers: 1, d_model: 8, d_ff: 32, heads: 2, d_kv: 8}]\n"
             "pretraining: {steps: 2, input_length: 32, batch_sequences: 4, evaluation_examples: 8}\n")
    (tmp_path / "sweep.yaml").write_text(sweep)
    cluster.start_worker("worker", trainers=())
    cluster.allo("submit", tmp_path / "sweep.yaml", "--wait")
    model, data = tmp_path / "model", tmp_path / "prepared"
    refused = cluster.allo("checkpoint", "fetch", "kept/transformer-a-s0", "-o", model, check=False)
    assert (refused.returncode, model.exists()) == (5, False) and "keep_models: all" in refused.stderr
    (tmp_path / "sweep.yaml").write_text(sweep + "keep_models: all\n")
    cluster.allo("submit", tmp_path / "sweep.yaml", "--update", "--wait")
    cluster.allo("retry", "kept", "transformer-a-s0")
    assert cluster.finished("kept").done == 2
    shown = json.loads(cluster.allo("checkpoint", "fetch", "kept/transformer-a-s0", "-o", model, "--format", "json").stdout)
    assert shown["models"][0]["architecture"] == "transformer"
    assert sorted(path.name for path in model.iterdir()) == ["model.json", "model.safetensors"]
    assert cluster.allo("checkpoint", "fetch", "kept/transformer-a-s0", "-o", model, check=False).returncode == 4
    cluster.allo("checkpoint", "export", model, "--to", "huggingface", "-o", tmp_path / "huggingface")
    cluster.allo("checkpoint", "fetch", "kept/prepare", "-o", data)
    files = json.loads((data / "data.json").read_text())["files"]
    for name, file in files.items():
        assert hashlib.sha256((data / name).read_bytes()).hexdigest() == file["sha256"]
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.skipif(not (build_dir() / "allo-trainer").exists(), reason="allo-trainer is not built here")
def test_transformers_from_text_to_slopes(cluster, tmp_path):
    corpus(tmp_path)
    shape = "layers: 1, d_ff: 32, heads: 2, d_kv: 8"
    (tmp_path / "sweep.yaml").write_text(
        "name: tiny\ndata: {text: [corpus.txt]}\ntokenizer: {vocabulary: 400}\narchitectures: [transformer]\n"
        f"sizes: [{{name: a, d_model: 8, {shape}}}, {{name: b, d_model: 16, {shape}}}, {{name: c, d_model: 32, {shape}}}]\n"
        "seeds: [0, 1]\npretraining: {steps: 20, input_length: 32, batch_sequences: 4, evaluation_examples: 8}\n")
    cluster.start_worker("worker", trainers=())
    done = cluster.allo("submit", tmp_path / "sweep.yaml", "--wait", check=False)
    why = [(cell.cell, cell.error) for cell in cluster.cells("tiny")]
    assert done.returncode == 0, (done.stdout, done.stderr, why)
    slopes = cluster.analysis.Slopes(module("analysis_service_pb2").SlopesRequest(sweeps=["tiny"]))
    slope = next(s for s in slopes.architectures[0].slopes if (s.x, s.y) == ("flops", "upstream"))
    assert slope.known and slope.sizes == 3


@pytest.mark.skipif(not (build_dir() / "allo-trainer").exists(), reason="allo-trainer is not built here")
def test_built_data_sets_and_tasks_of_ones_own(cluster, tmp_path):
    """Two data sets mixed by rate, another objective, a cell for each task, and every prediction to be read later."""
    corpus(tmp_path)
    (tmp_path / "rows.jsonl").write_text("".join(
        json.dumps({"body": f"A row about the number {i} and the paragraph {i % 7}."}) + "\n" for i in range(400)))
    vocabulary = ["--vocabulary", 300]
    cluster.allo("data", "tokenizer", "--in", tmp_path / "corpus.txt", "--out", tmp_path / "own.model", *vocabulary)
    for name, source in (("text", ["corpus.txt"]), ("rows", ["rows.jsonl", "--field", "body"])):
        cluster.allo("data", "build", "--in", tmp_path / source[0], *source[1:], "--tokenizer", tmp_path / "own.model",
                     "--validation-fraction", 0.1, "--out", tmp_path / name, *vocabulary)
    for name in ("train", "valid"):
        (tmp_path / f"{name}.jsonl").write_text("".join(
            json.dumps({"input": f"is it {i}", "choices": ["a row", "a corpus"], "label": i % 2, "id": f"{name}-{i}"}) + "\n"
            for i in range(20)))
    task = "train: train.jsonl, valid: valid.jsonl"
    sweep = (
        "name: mixed\ndata: {mixture: [{path: text, rate: 3}, {path: rows}]}\narchitectures: [transformer]\n"
        "sizes: [{name: a, layers: 1, d_model: 8, d_ff: 32, heads: 2, d_kv: 8}]\n"
        "pretraining: {steps: 10, input_length: 32, batch_sequences: 4, evaluation_examples: 8, objective: prefix_lm}\n"
        f"finetuning: {{tasks: [{{name: mine, {task}}}, {{name: also, {task}, max_valid: 5}}], mode: separate,\n"
        "  decoding: rank, steps: 4, batch_sequences: 4, select: best, holdout: 2}\n")
    (tmp_path / "sweep.yaml").write_text(sweep)
    cluster.start_worker("worker", trainers=())
    cluster.allo("submit", tmp_path / "sweep.yaml", "--wait")
    cells = {cell.cell.split("/")[-1] for cell in cluster.cells("mixed")}
    assert cells == {"prepare", "prepare-ft-mine", "prepare-ft-also", "transformer-a-s0", "transformer-a-s0-ft-mine",
                     "transformer-a-s0-ft-also"}

    reports = [json.loads(report) for report, in sqlite3.connect(cluster.data / "allometry.db").execute(
        "SELECT report_json FROM results")]
    parts = next(report["parts"] for report in reports if report.get("parts") and "epochs" in report["parts"][0])
    assert [(part["name"], part["rows"]) for part in parts] == [("text", 30), ("rows", 10)]
    scores = json.loads(cluster.allo("scores", "mixed", "--format", "json").stdout)["scores"]
    assert {row["score"] for row in scores if not row["average"]} == {"mine", "also"}
    answers = tmp_path / "answers"
    cluster.allo("checkpoint", "fetch", "mixed/transformer-a-s0-ft-also", "--what", "predictions", "-o", answers)
    rows = [json.loads(line) for line in (answers / "also.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"valid-{i}" for i in range(5)]
    assert {row["prediction"] for row in rows} <= {"a row", "a corpus"}

    # Another task trains what is new: its own cells.
    (tmp_path / "sweep.yaml").write_text(sweep.replace("tasks: [", f"tasks: [{{name: third, {task}}}, "))
    cluster.allo("submit", tmp_path / "sweep.yaml", "--update", "--wait")
    added = {cell.cell.split("/")[-1] for cell in cluster.cells("mixed")} - cells
    assert added == {"prepare-ft-third", "transformer-a-s0-ft-third"}
    for cell in cluster.cells("mixed"):
        assert len(cluster.explain(cell.cell).attempts) == 1, cell.cell
