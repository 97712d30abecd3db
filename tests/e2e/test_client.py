"""A Python client made from the proto files, against real processes."""
import importlib.util
import json
import subprocess

import grpc
import numpy
import pytest

from cluster import HANGS_S, build_dir, corpus, fake_spec, manifest, module, submit, Process


def test_submits_watches_and_asks_for_slopes_and_frontier(cluster, tmp_path):
    service = module("sweep_service_pb2")
    answer = submit(cluster, fake_spec("study", orders=4, seeds=2), corpus(tmp_path))
    assert answer.new_runs == 8
    cluster.start_worker("worker")
    seen = {}
    for event in cluster.sweeps.Watch(service.WatchRequest(sweep="study"), timeout=HANGS_S):
        seen.update({cell.cell: cell.state for cell in event.cells})
        if event.sweep.state == module("sweep_pb2").SWEEP_STATE_FINISHED:
            break
    assert len(seen) == 8
    assert set(seen.values()) == {module("sweep_pb2").RUN_STATE_DONE}

    rows = [json.loads(row.json) for row in cluster.sweeps.Export(service.ExportRequest(sweep="study"), timeout=HANGS_S)]
    assert len(rows) == 8
    # The slope again, by numpy, from the exported rows: a line through the seeds' means.
    by_order = {}
    for row in rows:
        by_order.setdefault(row["forward_flops"], []).append(-row["validation_loss"])
    x = numpy.log10(sorted(by_order))
    y = [numpy.mean(by_order[flops]) for flops in sorted(by_order)]
    expected = numpy.polyfit(x, y, 1)[0]

    slopes = cluster.analysis.Slopes(module("analysis_service_pb2").SlopesRequest(sweeps=["study"]), timeout=HANGS_S)
    slope = next(s for s in slopes.architectures[0].slopes if (s.x, s.y) == ("flops", "upstream"))
    assert slope.known
    assert slope.alpha == pytest.approx(expected, abs=1e-9)
    assert slope.seed_interval.known and slope.seed_interval.low < slope.alpha < slope.seed_interval.high

    pareto = cluster.analysis.Pareto(module("analysis_service_pb2").ParetoRequest(sweeps=["study"]), timeout=HANGS_S)
    assert [point.on_frontier for point in pareto.points] == [True] * 4
    assert [point.cost for point in pareto.points] == sorted(by_order)


def test_compares_architectures(cluster, tmp_path):
    """Two lines that cross at 10^5 FLOPs, between the second and the third of four sizes."""
    analysis = module("analysis_service_pb2")
    spec = fake_spec("pair", orders=4, seeds=2)
    steep = spec.architectures.add(name="steep")
    steep.options.update({"slope": 0.6, "above": 0.5})
    submit(cluster, spec, corpus(tmp_path))
    cluster.start_worker("worker")
    assert cluster.finished("pair").done == 16

    request = analysis.CrossoversRequest(slopes=analysis.SlopesRequest(sweeps=["pair"]))
    crossover, = cluster.analysis.Crossovers(request, timeout=HANGS_S).crossovers
    assert (crossover.first, crossover.second, crossover.verdict) == ("fake", "steep", "observed")
    assert crossover.at[0] == pytest.approx(1e5, rel=1e-6)
    assert crossover.bands[0].low < 1e5 < crossover.bands[0].high
    assert (crossover.ahead_below, crossover.ahead_above) == ("fake", "steep")

    ranks = cluster.analysis.Ranks(analysis.RanksRequest(sweeps=["pair"]), timeout=HANGS_S)
    order = {size.size: [ranked.architecture for ranked in size.ranking] for size in ranks.sizes}
    assert order["n1"] == ["fake", "steep"] and order["n4"] == ["steep", "fake"]
    assert ranks.sizes[0].ranking[0].probability_best > 0.99
    tau = {(a.first, a.second): a.tau for a in ranks.agreements}
    assert tau["n1", "n4"] == -1 and tau["n3", "n4"] == 1

    # The command line prints the same, from the coordinator and from the file.
    asked = json.loads(cluster.allo("crossover", "pair", "--format", "json").stdout)["crossovers"]
    offline = json.loads(cluster.allo("crossover", "--db", cluster.data / "allometry.db", "--format", "json").stdout)["crossovers"]
    assert asked == offline and asked[0]["at"][0]["value"] == pytest.approx(1e5, rel=1e-6)
    shown = cluster.allo("crossover", "pair", "--between", "steep").stdout
    assert "steep/fake" in shown and "observed" in shown and "100k" in shown
    both = json.loads(cluster.allo("rank", "pair", "--format", "json").stdout)
    assert [len(size["ranking"]) for size in both["sizes"]] == [2] * 4 and len(both["agreements"]) == 6
    assert "Kendall's tau" in cluster.allo("rank", "pair").stdout
    wrong = cluster.allo("crossover", "pair", "--axes", "Q,U", check=False)
    assert wrong.returncode == 2 and "F,U" in wrong.stderr


def test_suggests_runs_and_writes_the_sweep_that_makes_them(cluster, tmp_path):
    spec = fake_spec("first", orders=4, seeds=2)
    submit(cluster, spec, corpus(tmp_path))
    cluster.start_worker("worker")
    assert cluster.finished("first").done == 8
    budget = 3 * 10 ** 7 + 3 * 10 ** 4  # a third seed of the dearest size, and of the cheapest
    answer = json.loads(cluster.allo("suggest", "first", "--budget", str(budget), "-o", tmp_path / "next.yaml", "--format",
                                     "json").stdout)
    cells = {(cell["size"], cell["seed"]) for cell in answer["cells"]}
    assert cells and all(seed >= 2 for _, seed in cells) and answer["total_flops"] <= budget
    slope, = answer["slopes"]
    assert slope["half_width_after"] < slope["half_width_now"]

    # The file is a sweep of these cells and no others, and both sweeps are analysed together.
    assert cluster.allo("submit", tmp_path / "next.yaml", "--data", cluster.data).returncode == 0
    assert cluster.finished("first-next").done == len(cells)
    listed = json.loads(cluster.allo("list", "first-next", "--format", "json").stdout)["cells"]
    assert {(cell["size"], cell["seed"]) for cell in listed} == cells
    together = json.loads(cluster.allo("slopes", "first", "first-next", "--format", "json").stdout)
    assert together["architectures"][0]["slopes"][0]["cells"] == 8 + len(cells)


def test_reports_a_study(cluster, tmp_path):
    submit(cluster, fake_spec("study", orders=3, seeds=2), corpus(tmp_path))
    cluster.start_worker("worker")
    assert cluster.finished("study").done == 6
    assert "6 of 6 cells" in cluster.allo("report", "study", "-o", tmp_path / "report.md").stdout
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# study") and "fake" in text and "Learning curves" in text
    cluster.allo("report", "--db", cluster.data / "allometry.db", "-o", tmp_path / "offline.json")
    cluster.allo("report", "study", "-o", tmp_path / "online.json")
    online, offline = (json.loads((tmp_path / name).read_text()) for name in ("online.json", "offline.json"))
    assert online == offline
    assert {"slopes", "frontiers"} <= {section["name"] for section in online["sections"]}
    cluster.allo("report", "study", "-o", tmp_path / "report.tex")
    assert "\\begin" in (tmp_path / "report.tex").read_text()
    page = cluster.allo("report", "study", "-o", tmp_path / "report.html", "--figures", tmp_path / "figures", check=False)
    if importlib.util.find_spec("vl_convert") is None:
        assert page.returncode == 5 and "install-deps.sh" in page.stderr
        return
    assert page.returncode == 0, page.stderr
    assert "<svg" in (tmp_path / "report.html").read_text()
    assert {path.suffix for path in (tmp_path / "figures").iterdir()} == {".svg", ".png", ".json", ".csv"}


def test_a_repeated_question_is_answered_by_the_data_of_now(cluster, tmp_path):
    """Answers are kept, and a new result is seen at once all the same."""
    analysis = module("analysis_service_pb2")
    ask = lambda: cluster.analysis.Slopes(analysis.SlopesRequest(sweeps=["grows"]), timeout=HANGS_S)
    submit(cluster, fake_spec("grows", orders=2, seeds=2), corpus(tmp_path))
    cluster.start_worker("worker")
    assert cluster.finished("grows").done == 4
    first = ask()
    assert ask() == first
    spec = fake_spec("grows", orders=3, seeds=2)
    cluster.sweeps.Submit(module("sweep_service_pb2").SubmitRequest(
        request_uuid="more", spec=spec, manifest=manifest(corpus(tmp_path)), update=True), timeout=HANGS_S)
    assert cluster.finished("grows").done == 6
    assert ask().architectures[0].slopes[0].sizes == 3


def made_up_runs(path, seeds=1):
    """L = 1.7 + 30 C^-0.2 at nine sizes, with C = 6 N D and D = 20 N."""
    rng = numpy.random.default_rng(1)
    lines = ["model,N,D,C,final_loss,seed"]
    for size in range(9):
        n = 10 ** (6 + size / 2)
        for seed in range(seeds):
            loss = (1.7 + 30 * (120 * n * n) ** -0.2) * numpy.exp(0.001 * rng.standard_normal())
            lines.append(f"ours,{n:.0f},{20 * n:.0f},{120 * n * n:.6e},{loss:.5f},{seed}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_runs_trained_elsewhere_are_analysed_like_a_sweep(cluster, tmp_path):
    runs = made_up_runs(tmp_path / "runs.csv", seeds=2)
    mapping = "architecture=model,params=N,tokens=D,flops=C,loss=final_loss"
    shown = cluster.allo("import", runs, "--map", mapping, "--name", "ours").stdout
    assert shown.startswith("ours: 18 runs")
    again = cluster.allo("import", runs, "--map", mapping, "--name", "ours", check=False)
    assert again.returncode == 4 and "--replace" in again.stderr
    assert cluster.allo("import", runs, "--map", mapping, "--name", "ours", "--replace").returncode == 0
    wrong = cluster.allo("import", runs, "--map", "architecture=model,loss=final_los", "--name", "x", check=False)
    assert wrong.returncode == 2 and "final_loss" in wrong.stderr  # the nearest column

    offline = tmp_path / "study.db"
    cluster.allo("import", runs, "--map", mapping, "--name", "ours", "--db", offline)
    for verb in (["fit", "--form", "compute", "--replicates", "200"], ["backtest", "--flops", "training"],
                 ["slopes", "--flops", "training"], ["suggest", "--budget", "1e18", "--law", "compute"]):
        asked = json.loads(cluster.allo(*verb, "ours", "--format", "json").stdout)
        assert asked == json.loads(cluster.allo(*verb, "--db", offline, "--format", "json").stdout), verb

    law, = json.loads(cluster.allo("fit", "ours", "--form", "compute", "--format", "json").stdout)["laws"]
    for fit in law["fit"]["fits"]:
        assert fit["status"] == "converged"
        alpha = next(e for e in fit["estimates"] if e["name"] == "alpha")
        assert alpha["interval"]["low"] < 0.2 < alpha["interval"]["high"]
    errors = json.loads(cluster.allo("backtest", "ours", "--axes", "F,U", "--flops", "training", "--format",
                                     "json").stdout)["errors"]
    by_form = {e["form"]: e["median_absolute_relative_error"] for e in errors}
    assert by_form["compute"] < 0.005 < by_form["line"]
    assert "converged" in cluster.allo("fit", "ours").stdout

    # Its name is taken, for sweeps as well, until it is forgotten.
    with pytest.raises(grpc.RpcError) as taken:
        submit(cluster, fake_spec("ours", orders=1, seeds=1), corpus(tmp_path))
    assert taken.value.code() == grpc.StatusCode.ALREADY_EXISTS
    no_file = cluster.allo("suggest", "ours", "--budget", "1e18", "--flops", "training", "-o", tmp_path / "next.yaml", check=False)
    assert no_file.returncode == 3 and "imported" in no_file.stderr
    assert cluster.allo("import", "ours", "--remove").returncode == 0
    assert cluster.allo("slopes", "ours", check=False).returncode == 3


def test_errors_carry_codes(cluster, tmp_path):
    service = module("sweep_service_pb2")
    with pytest.raises(grpc.RpcError) as unknown:
        cluster.get("nobody")
    assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
    spec = fake_spec("bad", orders=1, seeds=1)
    spec.pretraining.ClearField("steps")
    with pytest.raises(grpc.RpcError) as bad:
        cluster.sweeps.Plan(service.PlanRequest(spec=spec, manifest=manifest(corpus(tmp_path))))
    assert bad.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "steps" in bad.value.details()


def test_health_and_reflection_are_on(cluster):
    health = cluster.channel or cluster.sweeps and cluster.channel
    check = health.unary_unary("/grpc.health.v1.Health/Check")
    assert check(b"", timeout=HANGS_S) == b"\x08\x01"  # status: SERVING
    # A reflection request with field 7 (list_services); the answer names every service.
    reflect = health.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    names = next(iter(reflect(iter([b"\x3a\x00"]), timeout=HANGS_S)))
    for name in (b"SweepService", b"WorkerService", b"ClusterService", b"AnalysisService"):
        assert b"allometry.v1." + name in names


def refusal(arguments):
    done = subprocess.run([str(a) for a in [build_dir() / "allo", "coordinator", *arguments]], capture_output=True, text=True,
                          timeout=HANGS_S)
    assert done.returncode != 0
    return done.returncode, done.stderr


def test_a_coordinator_that_cannot_start_says_why(cluster, tmp_path):
    code, message = refusal(["--data", cluster.data])
    assert code == 5 and "in use by another coordinator" in message
    code, message = refusal(["--data", tmp_path / "other", "--listen", cluster.address])
    assert code == 5 and "port is in use" in message
    code, message = refusal(["--data", tmp_path / "other", "--listen", "0.0.0.0:0"])
    assert code == 9 and "token" in message
    (tmp_path / "file").write_text("")
    code, message = refusal(["--data", tmp_path / "file/data"])
    assert "--data" in message
    assert not (tmp_path / "other" / "endpoint.json").exists()


def test_a_token_and_tls_guard_an_open_address(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
                    "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key),
                    "-out", str(certificate)], check=True, capture_output=True)
    from cluster import Cluster, wait_until
    guarded = Cluster(tmp_path, environment={"ALLOMETRY_TOKEN": "open sesame"})
    guarded.coordinator = Process([build_dir() / "allo", "coordinator", "--data", guarded.data, "--listen",
                                   f"0.0.0.0:{guarded.port}", "--tls-certificate", certificate, "--tls-key", key],
                                  tmp_path / "coordinator.log", env=guarded.environment)
    try:
        wait_until(guarded.endpoint_is_fresh, "the coordinator to start")
        credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
        with grpc.secure_channel(f"localhost:{guarded.port}", credentials) as channel:
            status = module("sweep_service_pb2_grpc").ClusterServiceStub(channel).Status
            request = module("sweep_service_pb2").StatusRequest()
            with pytest.raises(grpc.RpcError) as refused:
                status(request, timeout=HANGS_S)
            assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
            answer = status(request, metadata=[("authorization", "Bearer open sesame")], timeout=HANGS_S)
            assert answer.cluster_id
        done = guarded.allo("status", "--ca", certificate)
        assert done.returncode == 0
    finally:
        guarded.close()
