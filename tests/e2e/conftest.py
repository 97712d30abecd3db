import pytest

import cluster as clusters


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
