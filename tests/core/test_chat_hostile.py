"""Hostile templates end soon, by counted work and memory; what real ones need is far below.

The budget here is a twentieth of the real one, so that the test is short; with `-m slow` it is the
real one.
"""

from __future__ import annotations

import functools
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest

from chat_hostile import HOSTILE
from helpers import native

chat = native("chat_template")

REAL_WORK = 400_000_000  # Limits in cpp/chat_template/budget.h
WORK = REAL_WORK // 20
MEMORY = 192 << 20
REASONS = {"limit", "syntax", "failed", "refused"}


@functools.cache
def outcome(source: str, work: int = WORK) -> tuple[str, dict]:
    """ "done" or the reason, and what it used."""
    try:
        return "done", chat.render(source, '{"messages": [{"content": "hi"}]}', work=work)
    except chat.NativeError as caught:
        error = caught
    assert len(str(error)) < 2000
    return error.reason, {}


def test_there_are_enough_of_them():
    assert len(HOSTILE) >= 113


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.timeout(120)  # a net: an operation that is not counted runs for minutes
def test_a_hostile_template_ends_within_its_work(name):
    check(name, WORK)


def check(name, work):
    reason, found = outcome(HOSTILE[name], work)
    assert reason in {*REASONS, "done"}
    if reason == "done":
        extra = 448 * len(HOSTILE[name].encode()) + 50_000
        assert found["work"] <= work + extra
        assert found["memory_bytes"] <= MEMORY + extra


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.timeout(120)
def test_a_hostile_template_ends_within_the_real_limit(name):
    check(name, REAL_WORK)


def test_what_is_too_much_is_refused_and_what_is_strange_is_not_done():
    done = [name for name in HOSTILE if outcome(HOSTILE[name])[0] == "done"]
    assert len(done) < len(HOSTILE) / 3, done
    for name in ("attribute", "globals", "include", "change messages", "double a list's text"):
        assert name not in done


@pytest.mark.parametrize("memory_mib", [1, 16])
def test_less_memory_is_refused_sooner(memory_mib):
    with pytest.raises(chat.NativeError, match="memory") as caught:
        chat.render("{{ 'x' * 1000000 ~ 'y' * 4000000 }}", memory_bytes=memory_mib << 20)
    assert caught.value.reason == "limit"
    assert chat.render("{{ ('x' * 1000) | length }}", memory_bytes=memory_mib << 20)["text"]


OPERATIONS = """
x.find('b'); x.rfind('b'); x.index('c'); x.count('aa'); x.split('b');
x.rsplit('b'); x.split(); x.partition('b'); x.rpartition('b'); x.strip('ac'); x.lstrip('a');
x.rstrip('c'); x.replace('a', 'b'); x.title(); x.upper(); x.lower(); x.swapcase();
x.capitalize(); x.splitlines(); x.isalpha(); x.islower(); x.istitle(); x.isprintable();
x.startswith(x); x.endswith(x); x.removeprefix(x); x.center(90000); x.zfill(90000);
x.expandtabs(); ','.join(x); 'b' in x; x == y; x < y; x ~ 'b'; x + 'b'; x * 2; x[::-1];
x[1:]; '%s' % x; '%90000d' % 1; '{}'.format(x); '{:90000}'.format(1); (x | tojson);
(x | title); (x | e); (x | urlencode); (x | indent); (x | wordcount); (x | list); (x | int);
(x | float); (x | reverse); {x: 1}; 1 in l; l.index(2); l.count(1); l == m; l + l; l * 2;
l[1:]; (l | sort); (l | join); (l | sum); (l | max); (l | unique); (l | map('string'));
(l | select); (l | reject('odd')); (l | batch(2)); (l | slice(2)); (l | tojson); (l | string);
(l | reverse); (l | list); (l | groupby('a', default=1)); (range(n) | list);
dict(range(n) | batch(2))
"""


@pytest.mark.parametrize(
    "operation", [op.strip() for op in OPERATIONS.split(";") if op.strip()]
)  # fmt: skip
def test_work_is_counted_whatever_the_operation(operation):
    def work(n: int, expression: str) -> int:
        setup = (
            f"{{% set n = {n} %}}{{% set x = 'a' * n ~ 'c' %}}{{% set y = 'a' * n ~ 'c' %}}"
            f"{{% set l = [0] * n + [2] %}}{{% set m = [0] * n + [2] %}}"
        )
        return int(chat.render(setup + "{% set _ = " + expression + " %}")["work"])

    small, large = (work(n, operation) - work(n, "n") for n in (10_000, 40_000))
    if "90000" in operation:  # the width is what it costs
        assert small > 40_000
        return
    assert small >= 9_000
    assert large >= 3 * small


def test_work_does_not_depend_on_the_clock():
    source = HOSTILE["elifs"]
    works = {chat.render(source)["work"] for _ in range(3)}
    assert len(works) == 1


def test_hostile_templates_need_little_memory():
    """Those that make large values, in a process that may not grow by more than a gigabyte."""
    code = """
import resource, sys
sys.path[:0] = sys.argv[1:]
from chat_hostile import HOSTILE
from test_chat_hostile import outcome
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + (1 << 30),) * 2)
for name, source in HOSTILE.items():
    if name.startswith("again"):
        continue
    reason, _ = outcome(source)
    assert reason, name  # memory that is really out has none
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - used) >> 20)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *filter(None, sys.path)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 600, f"grew by {done.stdout} MiB"


def test_memory_of_values_in_circles_is_released():
    circle = HOSTILE["a circle"] + HOSTILE["a circle of loops"] + "{% set n.z = 'x' * 1000000 %}"
    for _ in range(5):
        outcome(circle)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(300):
        outcome(circle)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


def test_ctrl_c_ends_a_rendering(tiny):
    import specdec_native as sd

    slow = "{% for i in range(100000) %}" * 2 + "{% endfor %}" * 2
    # A conversation so large that the work it allows takes seconds.
    messages = [{"role": "user", "content": "x" * 20_000_000}]
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    start = time.monotonic()
    with pytest.raises((KeyboardInterrupt, sd.TemplateError)) as caught:
        while time.monotonic() - start < 30:
            try:
                tiny.apply_chat_template(messages, template=slow)
            except sd.TemplateError:
                continue
    timer.cancel()
    assert caught.type is KeyboardInterrupt
