"""Real processes for the tests: a coordinator, workers, and clients made from the proto files.

A wait here ends after HANGS_S seconds: no test depends on how long anything takes, but none may hang for ever either.
"""
import contextlib
import hashlib
import importlib
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import grpc

ROOT = pathlib.Path(__file__).resolve().parents[2]
HANGS_S = 180
FAKE_TRAINER = f"fake={sys.executable} {ROOT / 'tests/e2e/fake_trainer.py'}"


def build_dir():
    return pathlib.Path(os.environ.get("ALLOMETRY_BUILD_DIR", ROOT / "build/release"))


def generate_stubs(folder):
    """Python modules of the wire contract, as a user would make them."""
    from grpc_tools import protoc
    proto = ROOT / "proto"
    files = sorted(str(path) for path in proto.rglob("*.proto"))
    arguments = ["protoc", f"-I{proto}", f"-I{pathlib.Path(protoc.__file__).parent / '_proto'}", f"--python_out={folder}",
                 f"--grpc_python_out={folder}", *files]
    assert protoc.main(arguments) == 0
    sys.path.insert(0, str(folder))


def module(name):
    return importlib.import_module(f"allometry.v1.{name}")


def wait_until(condition, what):
    end = time.monotonic() + HANGS_S
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"still waiting for {what} after {HANGS_S} s")


def free_port():
    """Below the range that outgoing connections are given: nobody takes it while a coordinator is down."""
    for port in random.sample(range(10_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port among a hundred")


class Process:
    """A child whose output goes to a file, and which cannot outlive the test."""

    def __init__(self, arguments, log, **kwargs):
        self.log = log
        with open(log, "ab") as output:
            self.popen = subprocess.Popen([str(a) for a in arguments], stdout=output, stderr=output, **kwargs)

    def kill(self):
        self.popen.kill()
        self.popen.wait()

    def terminate(self):
        self.popen.send_signal(signal.SIGINT)
        return self.popen.wait(timeout=HANGS_S)

    def running(self):
        return self.popen.poll() is None


class Cluster:
    """One data directory, its coordinator, and workers."""

    def __init__(self, folder, lease_s=300, renew_s=10, environment=None):
        self.folder = pathlib.Path(folder)
        self.data = self.folder / "data"
        self.port = free_port()
        self.options = ["--lease", lease_s, "--renew", renew_s]
        self.environment = {**os.environ, **(environment or {})}
        for name in ("ALLOMETRY_TOKEN", "ALLOMETRY_DATA"):
            if name not in (environment or {}):
                self.environment.pop(name, None)
        self.workers = {}
        self.coordinator = None
        self.channel = None

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def start_coordinator(self, **kwargs):
        """`kwargs` are subprocess.Popen's, as in start_worker. Stubs made before belong to the one that was here before."""
        self.close_channel()  # it may not have noticed yet that its connection is dead
        self.coordinator = Process(
            [build_dir() / "allo", "coordinator", "--data", self.data, "--listen", self.address, *self.options],
            self.folder / "coordinator.log", **{"env": self.environment, **kwargs})
        wait_until(self.endpoint_is_fresh, "the coordinator to start")
        return self

    def endpoint_is_fresh(self):
        assert self.coordinator.running(), (self.folder / "coordinator.log").read_text()
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            return json.loads((self.data / "endpoint.json").read_text())["pid"] == self.coordinator.popen.pid
        return False

    def kill_coordinator(self):
        self.coordinator.kill()

    def start_worker(self, name, slots=2, trainers=(FAKE_TRAINER,), extra=(), devices=False, **kwargs):
        arguments = [build_dir() / "allo", "worker", "--coordinator", self.address, "--name", name, "--work",
                     self.folder / name, "--slots", slots, "--threads", 1, "--grace", 5]
        arguments += ["--probe-interval", 1] if devices else ["--no-devices"]
        for trainer in trainers:
            arguments += ["--trainer", trainer]
        self.workers[name] = Process([*arguments, *extra], self.folder / f"{name}.log",
                                     **{"env": self.environment, **kwargs})
        return self.workers[name]

    def kill_worker(self, name):
        self.workers.pop(name).kill()

    def allo(self, *arguments, check=True):
        done = subprocess.run([build_dir() / "allo", *[str(a) for a in arguments]], capture_output=True, text=True,
                              env={**self.environment, "ALLOMETRY_DATA": str(self.data)}, timeout=HANGS_S)
        if check:
            assert done.returncode == 0, f"allo {arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    # ---- clients ----

    def stub(self, service, module_name):
        if self.channel is None:
            self.channel = grpc.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1),
                                                                        ("grpc.max_reconnect_backoff_ms", 500)])
        return getattr(module(f"{module_name}_pb2_grpc"), f"{service}Stub")(self.channel)

    @property
    def sweeps(self):
        return self.stub("SweepService", "sweep_service")

    @property
    def cluster(self):
        return self.stub("ClusterService", "sweep_service")

    @property
    def analysis(self):
        return self.stub("AnalysisService", "analysis_service")

    def get(self, name):
        request = module("sweep_service_pb2").GetSweepRequest(name=name)
        return self.sweeps.Get(request, wait_for_ready=True, timeout=HANGS_S)

    def cells(self, name, with_results=False):
        request = module("sweep_service_pb2").ListRequest(sweep=name, with_results=with_results, page_size=10_000)
        return list(self.sweeps.List(request, wait_for_ready=True, timeout=HANGS_S).cells)

    def explain(self, cell):
        request = module("sweep_service_pb2").ExplainRequest(cell=cell)
        return self.sweeps.Explain(request, wait_for_ready=True, timeout=HANGS_S)

    def finished(self, name):
        return wait_until(lambda: self.over(self.get(name)), f"sweep {name} to finish")

    def over(self, sweep):
        self.check_processes()
        return sweep if sweep.state == module("sweep_pb2").SWEEP_STATE_FINISHED else None

    def check_processes(self):
        for name, worker in self.workers.items():
            assert worker.running(), f"{name} ended:\n{(self.folder / f'{name}.log').read_text()}"

    def close_channel(self):
        if self.channel:
            self.channel.close()
        self.channel = None

    def close(self):
        self.close_channel()
        for process in [*self.workers.values(), self.coordinator]:
            if process and process.running():
                process.kill()


def corpus(folder):
    path = pathlib.Path(folder) / "corpus.txt"
    path.write_text("".join(f"This is paragraph {i} of a small corpus about the number {i * i}.\n\n" for i in range(500)))
    return path


def fake_spec(name, orders, seeds, steps=30, devices="", **options):
    """A SweepSpec of the fake trainer."""
    sweep_pb2 = module("sweep_pb2")
    spec = sweep_pb2.SweepSpec(name=name, trainer="fake", seeds=range(seeds), devices=str(devices))
    spec.data.text.append("corpus.txt")
    spec.architectures.add(name="fake")
    for order in range(1, orders + 1):
        size = spec.sizes.add(name=f"n{order}")
        size.options.update({"order": order, **options})
    spec.pretraining.steps = steps
    return spec


def manifest(path):
    content = pathlib.Path(path).read_bytes()
    return [module("sweep_pb2").ManifestFile(role="corpus", name=path.name, bytes=len(content),
                                             sha256=hashlib.sha256(content).hexdigest(), path=str(path))]


def submit(cluster, spec, path, update=False):
    request = module("sweep_service_pb2").SubmitRequest(request_uuid=f"e2e-{spec.name}-{update}", spec=spec,
                                                        manifest=manifest(path), update=update)
    return cluster.sweeps.Submit(request, wait_for_ready=True, timeout=HANGS_S)


def assert_every_result_accepted_once(cluster, name):
    """The invariant behind every kill test: each run done, one accepted attempt each, losses as the line says."""
    rows = [json.loads(row.json) for row in cluster.sweeps.Export(
        module("sweep_service_pb2").ExportRequest(sweep=name), timeout=HANGS_S)]
    cells = cluster.cells(name)
    assert len(rows) == len(cells)
    for row in rows:
        order = int(row["size"].removeprefix("n"))
        assert abs(row["validation_loss"] - (6 - 0.5 * (3 + order) + (0.01 if row["seed"] == 0 else -0.01))) < 1e-9, row
    assert_one_attempt_accepted_each(cluster, cells)


def assert_one_attempt_accepted_each(cluster, cells):
    for cell in cells:
        attempts = cluster.explain(cell.cell).attempts
        assert sum(a.outcome == "done" for a in attempts) == 1, (cell.cell, [a.outcome for a in attempts])
        assert all(a.outcome != "live" for a in attempts)
        generations = [a.generation for a in sorted(attempts, key=lambda a: a.attempt_id)]
        assert generations == sorted(set(generations))
