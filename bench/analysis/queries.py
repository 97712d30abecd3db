#!/usr/bin/env python3
"""Questions to a live coordinator about 100,000 runs: how long the first answer takes, how long the same one again, and how
long the coordinator's own thread takes to answer while others ask.

The runs are made up here and imported. Peer: the same numbers without the questions, in turn.
"""
import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/e2e"), str(ROOT / "bench")]

import grpc  # noqa: E402

from provenance import provenance  # noqa: E402

import cluster as e2e  # noqa: E402  (real processes and a client made from the proto files)


def make_runs(path, sizes, architectures=12, seeds=4):
    with open(path, "w") as out:
        out.write("model,size,seed,N,C,loss\n")
        for a in range(architectures):
            for s in range(sizes):
                n = 10 ** (6 + 4 * s / sizes)
                for seed in range(seeds):
                    noise = ((a * 7919 + s * 104729 + seed * 1299709) % 1000 - 500) * 2e-5
                    out.write(f"arch{a},s{s},{seed},{n:.0f},{120 * n * n:.6e},{1.7 + 30 * n ** -0.25 + 0.01 * a + noise:.6f}\n")


def import_runs(running, path, name, sizes):
    make_runs(path, sizes)
    running.allo("import", path, "--map", "architecture=model,params=N,flops=C,loss=loss", "--name", name)


def milliseconds(call):
    start = time.monotonic()
    call()
    return 1000 * (time.monotonic() - start)


def first_and_again(ask):
    """The answer's bytes, and milliseconds at the client: the first time and, median of 9, again."""
    answer_bytes = []
    first = milliseconds(lambda: answer_bytes.append(ask().ByteSize()))
    again = statistics.median(milliseconds(ask) for _ in range(9))
    return {"first_ms": round(first, 1), "again_ms": round(again, 1), "bytes": answer_bytes[0]}


def strand_latencies(running, calls=300):
    """Of ListWorkers, which the coordinator's own thread answers."""
    service = e2e.module("sweep_service_pb2")
    times = []
    for _ in range(calls):
        times.append(milliseconds(lambda: running.cluster.ListWorkers(service.ListWorkersRequest(), timeout=60)))
        time.sleep(0.01)
    times.sort()
    return {"median_ms": round(statistics.median(times), 2), "p99_ms": round(times[int(0.99 * len(times))], 2)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "stubs").mkdir()
        e2e.generate_stubs(folder / "stubs")
        analysis = e2e.module("analysis_service_pb2")
        running = e2e.Cluster(folder)
        running.start_coordinator()
        running.channel = grpc.insecure_channel(running.address, options=[("grpc.max_receive_message_length", -1)])
        try:
            import_runs(running, folder / "many.csv", "many", sizes=2083)
            import_runs(running, folder / "few.csv", "few", sizes=25)
            pareto = lambda sweep, seed: running.analysis.Pareto(
                analysis.ParetoRequest(sweeps=[sweep], cost="training_flops", seed=seed), timeout=600)
            result = provenance("queries")
            for sweep, runs in (("few", 12 * 25 * 4), ("many", 12 * 2083 * 4)):
                slopes = analysis.SlopesRequest(sweeps=[sweep], flops="training")
                questions = {"slopes": lambda: running.analysis.Slopes(slopes, timeout=600), "pareto": lambda: pareto(sweep, 1)}
                result[f"{runs}_runs"] = {name: first_and_again(ask) for name, ask in questions.items()}
            result["strand_alone"] = strand_latencies(running)
            asked, stop = [0], threading.Event()

            def keep_asking(first):
                seed = first
                while not stop.is_set():
                    pareto("many", seed)  # another seed: another question
                    seed += 1
                    asked[0] += 1

            threads = [threading.Thread(target=keep_asking, args=(1000 * t + 2,)) for t in range(1, 3)]
            for thread in threads:
                thread.start()
            result["strand_with_two_asking"] = strand_latencies(running)
            stop.set()
            for thread in threads:
                thread.join()
            result["questions_meanwhile"] = asked[0]
        finally:
            running.close()
    print(json.dumps(result, indent=2))
    if arguments.output:
        pathlib.Path(arguments.output).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
