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


@pytest.mark.parametrize(
    ("small", "large"),
    [
        # Twice the size is at least nearly twice the work, whatever the operation.
        ("{{ ('a' * 20000).find('b') }}", "{{ ('a' * 40000).find('b') }}"),
        ("{{ ('a' * 20000).rfind('b') }}", "{{ ('a' * 40000).rfind('b') }}"),
        ("{{ ('a,' * 20000).rsplit(',') }}", "{{ ('a,' * 40000).rsplit(',') }}"),
        ("{{ ('a' * 20000).rpartition('b') }}", "{{ ('a' * 40000).rpartition('b') }}"),
        ("{{ ('a' * 20000).strip('a') }}", "{{ ('a' * 40000).strip('a') }}"),
        ("{{ ('a' * 20000).title() }}", "{{ ('a' * 40000).title() }}"),
        ("{{ ('a' * 20000) | title }}", "{{ ('a' * 40000) | title }}"),
        ("{{ 1 in [0] * 20000 }}", "{{ 1 in [0] * 40000 }}"),
        ("{{ ([0] * 20000) | sort }}", "{{ ([0] * 40000) | sort }}"),
        ("{{ ('a' * 20000) | tojson }}", "{{ ('a' * 40000) | tojson }}"),
        ("{{ '%20000d' % 1 }}", "{{ '%40000d' % 1 }}"),
        ("{{ '{:20000}'.format(1) }}", "{{ '{:40000}'.format(1) }}"),
        ("{{ range(20000) | sum }}", "{{ range(40000) | sum }}"),
        ("{{ ('a' * 20000).isalpha() }}", "{{ ('a' * 40000).isalpha() }}"),
        ("{{ [" + "1," * 5000 + "] }}", "{{ [" + "1," * 10000 + "] }}"),
        ("{% for i in range(20000) %}{% endfor %}", "{% for i in range(40000) %}{% endfor %}"),
    ],
)
def test_work_is_counted_before_it_is_done(small, large):
    base = chat.render("")["work"]
    once, twice = (chat.render(source)["work"] - base for source in (small, large))
    assert once > 5_000
    assert twice > 1.7 * once


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
