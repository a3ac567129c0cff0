"""The CPU time and memory that control groups leave: trees of both versions, built in a folder."""

from __future__ import annotations

import dataclasses
import os

import pytest

from helpers import native

base = native("base")

MIB = 1 << 20
V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_CPU = "31 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
V1_MEMORY = "32 23 0:28 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n"
V1_SYSTEMD = "33 23 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
V2_EMPTY = "34 23 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
V1_NONE = str(9223372036854771712)


@dataclasses.dataclass
class Tree:
    name: str
    groups: str  # /proc/self/cgroup
    mounts: str  # /proc/self/mountinfo
    files: dict[str, str]
    cores: float | None = None
    memory: int | None = None
    free: int | None = None


def v1_cpu(folder: str, quota: object, period: object = 100000) -> dict[str, str]:
    return {
        f"{folder}/cpu.cfs_quota_us": f"{quota}\n",
        f"{folder}/cpu.cfs_period_us": f"{period}\n",
    }


ROOT = "/sys/fs/cgroup"
CPU = f"{ROOT}/cpu,cpuacct"
MEMORY = f"{ROOT}/memory"
V2_A = {f"{ROOT}/a/cpu.max": "50000 100000\n"}

TREES = [
    Tree("no files at all", "", "", {}),
    Tree("v2, no limit", "0::/a\n", V2_MOUNT, {f"{ROOT}/a/cpu.max": "max 100000\n"}),
    Tree("v2, own group", "0::/a\n", V2_MOUNT, V2_A, cores=0.5),
    Tree("v2, a namespace's top", "0::/\n", V2_MOUNT, {f"{ROOT}/cpu.max": "150000 100000\n"}, 1.5),
    Tree(
        "v2, an ancestor is tighter",
        "0::/a/b/c\n",
        V2_MOUNT,
        {**V2_A, f"{ROOT}/a/b/cpu.max": "max 100000", f"{ROOT}/a/b/c/cpu.max": "400000 100000"},
        cores=0.5,
    ),
    Tree(
        "v2, the group is tighter than its ancestor",
        "0::/a/b\n",
        V2_MOUNT,
        {f"{ROOT}/a/cpu.max": "800000 100000\n", f"{ROOT}/a/b/cpu.max": "30000 20000\n"},
        cores=1.5,
    ),
    Tree("v2, a sibling's limit", "0::/b\n", V2_MOUNT, {**V2_A, f"{ROOT}/b/x": ""}),
    Tree("v2, quota alone", "0::/a\n", V2_MOUNT, {f"{ROOT}/a/cpu.max": "250000\n"}, cores=2.5),
    *(
        Tree(f"v2, malformed {text!r}", "0::/a\n", V2_MOUNT, {f"{ROOT}/a/cpu.max": text})
        for text in (
            *("", "\n", "many", "-1 100000", "0 100000", "50000 0", "50000 -5", "5e4 100000"),
            *("50000 100000 7", "99999999999999999999 100000", "50000 max", "0x10 0x20"),
        )
    ),
    Tree(
        "v2, a malformed limit below a good one",
        "0::/a/b\n",
        V2_MOUNT,
        {**V2_A, f"{ROOT}/a/b/cpu.max": "nonsense\n"},
        cores=0.5,
    ),
    Tree(
        "v2, outside of what the namespace shows",
        "0::/../other\n",
        V2_MOUNT,
        {f"{ROOT}/cpu.max": "200000 100000\n", "/sys/fs/other/cpu.max": "1000 100000\n"},
        cores=2.0,
    ),
    Tree(
        "v2, a part of the tree is mounted",
        "0::/pod/box/job\n",
        "30 23 0:26 /pod/box /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n",
        {f"{ROOT}/job/cpu.max": "max 1000\n", f"{ROOT}/cpu.max": "70000 100000\n"},
        cores=0.7,
    ),
    Tree(
        "v2, another part than the group's is mounted",
        "0::/pod/boxes\n",
        "30 23 0:26 /pod/box /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n",
        {f"{ROOT}/cpu.max": "70000 100000\n", f"{ROOT}/es/cpu.max": "1000 100000\n"},
        cores=0.7,
    ),
    Tree(
        "v2, mounted where there are spaces",
        "0::/a\n",
        "30 23 0:26 / /sys/my\\040groups\\134x rw - cgroup2 none rw\n",
        {"/sys/my groups\\x/a/cpu.max": "50000 100000\n"},
        cores=0.5,
    ),
    Tree("v1, no limit", "4:cpu,cpuacct:/a\n", V1_CPU, v1_cpu(f"{CPU}/a", -1)),
    Tree("v1, own group", "4:cpu,cpuacct:/a\n", V1_CPU, v1_cpu(f"{CPU}/a", 50000), cores=0.5),
    Tree("v1, order of controllers", "4:cpuacct,cpu:/a\n", V1_CPU, v1_cpu(f"{CPU}/a", 5000), 0.05),
    Tree(
        "v1, an ancestor is tighter",
        "4:cpu,cpuacct:/a/b\n",
        V1_CPU,
        {**v1_cpu(f"{CPU}/a", 50000), **v1_cpu(f"{CPU}/a/b", 400000)},
        cores=0.5,
    ),
    Tree(
        "v1, a container with the host's path",
        "4:cpu,cpuacct:/docker/1f\n",
        V1_CPU.replace(" / ", " /docker/1f "),
        v1_cpu(CPU, 120000),
        cores=1.2,
    ),
    Tree(
        "v1, a path that is not visible",
        "4:cpu,cpuacct:/docker/1f\n",
        V1_CPU,
        v1_cpu(CPU, 120000),
        cores=1.2,
    ),
    Tree("v1, other controllers", "4:cpuset:/a\n", V1_SYSTEMD, v1_cpu(f"{ROOT}/systemd/a", 10)),
    Tree(
        "v1, no period",
        "4:cpu:/a\n",
        V1_CPU,
        {f"{CPU}/a/cpu.cfs_quota_us": "50000\n"},
    ),
    Tree("v1, malformed period", "4:cpu:/a\n", V1_CPU, v1_cpu(f"{CPU}/a", 50000, "soon")),
    Tree(
        "hybrid: the controllers are in v1",
        "9:name=systemd:/\n4:memory:/m\n3:cpu,cpuacct:/c\n0::/u\n",
        V1_CPU + V1_MEMORY + V1_SYSTEMD + V2_EMPTY,
        {
            **v1_cpu(f"{CPU}/c", 250000),
            f"{ROOT}/unified/u/cgroup.procs": "1\n",
            f"{MEMORY}/m/memory.limit_in_bytes": f"{64 * MIB}\n",
            f"{MEMORY}/m/memory.usage_in_bytes": f"{16 * MIB}\n",
        },
        cores=2.5,
        memory=64 * MIB,
        free=48 * MIB,
    ),
    Tree(
        "hybrid: both limit, the least holds",
        "3:cpu,cpuacct:/c\n0::/u\n",
        V1_CPU + V2_EMPTY,
        {**v1_cpu(f"{CPU}/c", 250000), f"{ROOT}/unified/u/cpu.max": "100000 100000\n"},
        cores=1.0,
    ),
    Tree(
        "no mountinfo: the usual places",
        "0::/a\n",
        "",
        {**V2_A, f"{ROOT}/memory.max": f"{8 * MIB}\n"},
        cores=0.5,
        memory=8 * MIB,
        free=8 * MIB,
    ),
    Tree(
        "broken lines are skipped",
        "nonsense\n0:\n0::/a\n",
        "short line\n30 23 0:26 / - cgroup2\n" + V2_MOUNT,
        V2_A,
        cores=0.5,
    ),
    Tree(
        "v2 memory: cached files count as free, shared memory does not",
        "0::/a\n",
        V2_MOUNT,
        {
            f"{ROOT}/a/memory.max": f"{100 * MIB}\n",
            f"{ROOT}/a/memory.current": f"{90 * MIB}\n",
            f"{ROOT}/a/memory.stat": f"anon 1\nfile {60 * MIB}\nkernel 5\nshmem {20 * MIB}\n",
        },
        memory=100 * MIB,
        free=50 * MIB,
    ),
    Tree(
        "v2 memory: memory.high is tighter than memory.max",
        "0::/a\n",
        V2_MOUNT,
        {
            f"{ROOT}/a/memory.max": f"{100 * MIB}\n",
            f"{ROOT}/a/memory.high": f"{30 * MIB}\n",
            f"{ROOT}/a/memory.current": f"{10 * MIB}\n",
        },
        memory=30 * MIB,
        free=20 * MIB,
    ),
    Tree(
        "v2 memory: an ancestor is nearly full",
        "0::/a/b\n",
        V2_MOUNT,
        {
            f"{ROOT}/a/memory.max": f"{100 * MIB}\n",
            f"{ROOT}/a/memory.current": f"{95 * MIB}\n",
            f"{ROOT}/a/b/memory.max": f"{50 * MIB}\n",
            f"{ROOT}/a/b/memory.current": f"{10 * MIB}\n",
        },
        memory=50 * MIB,
        free=5 * MIB,
    ),
    Tree(
        "v2 memory: above the limit",
        "0::/a\n",
        V2_MOUNT,
        {f"{ROOT}/a/memory.max": "4096\n", f"{ROOT}/a/memory.current": "8192\n"},
        memory=4096,
        free=0,
    ),
    Tree("v2 memory: max", "0::/a\n", V2_MOUNT, {f"{ROOT}/a/memory.max": "max\n"}),
    Tree("v2 memory: malformed", "0::/a\n", V2_MOUNT, {f"{ROOT}/a/memory.max": "1G\n"}),
    Tree(
        "v1 memory: none is a large number",
        "4:memory:/a\n",
        V1_MEMORY,
        {f"{MEMORY}/a/memory.limit_in_bytes": V1_NONE, f"{MEMORY}/a/memory.usage_in_bytes": "5"},
    ),
    Tree(
        "v1 memory: nested, with the cache",
        "4:memory:/a/b\n",
        V1_MEMORY,
        {
            f"{MEMORY}/a/memory.limit_in_bytes": f"{40 * MIB}",
            f"{MEMORY}/a/memory.usage_in_bytes": f"{39 * MIB}",
            f"{MEMORY}/a/memory.stat": f"cache 1\ntotal_cache {30 * MIB}\ntotal_shmem {MIB}\n",
            f"{MEMORY}/a/b/memory.limit_in_bytes": V1_NONE,
        },
        memory=40 * MIB,
        free=30 * MIB,
    ),
]


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree.name)
def test_the_least_limit_of_the_group_and_its_ancestors_holds(tmp_path, tree):
    files = {"/proc/self/cgroup": tree.groups, "/proc/self/mountinfo": tree.mounts, **tree.files}
    for name, text in files.items():
        path = tmp_path / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    limits = base.control_groups(str(tmp_path))
    expected = {"cpu_cores": tree.cores, "memory_bytes": tree.memory, "free_bytes": tree.free}
    assert limits == {key: pytest.approx(value) for key, value in expected.items()}


@pytest.mark.parametrize(
    ("cores", "n_threads"),
    [(0.05, 1), (0.5, 1), (1, 1), (1.5, 1), (1.99, 2), (2, 2), (2.5, 2), (3.9, 3), (64, 64)],
)
def test_no_thread_is_started_on_a_part_of_a_core(cores, n_threads):
    assert base.threads_for_cores(cores) == n_threads


def test_this_machine_has_readable_groups(monkeypatch):
    monkeypatch.delenv("SPECDEC_THREADS", raising=False)
    cores = base.control_groups("")["cpu_cores"]
    n = base.default_n_threads()
    assert 1 <= n <= len(os.sched_getaffinity(0))
    if cores is not None:
        assert n <= max(1, cores + 0.02)
