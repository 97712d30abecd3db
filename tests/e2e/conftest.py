import pytest

import cluster as clusters


LOG_LINES = 15


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the ends of its processes' logs."""
    report = yield
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and folder:
        for log in sorted(folder.glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            report.sections.append((log.name, "\n".join(lines)))
    return report


@pytest.fixture(scope="session", autouse=True)
def stubs(tmp_path_factory):
    clusters.generate_stubs(tmp_path_factory.mktemp("stubs"))


@pytest.fixture
def make_cluster(tmp_path):
    made = []

    def make(**kwargs):
        made.append(clusters.Cluster(tmp_path, **kwargs))
        return made[-1].start_coordinator()

    yield make
    for cluster in made:
        cluster.close()


@pytest.fixture
def cluster(make_cluster):
    return make_cluster()
