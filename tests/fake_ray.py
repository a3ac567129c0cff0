"""As much of Ray as is used, in this process: workers end in any order, and some die."""

from __future__ import annotations

import random
import types


class RayActorError(Exception):
    pass


class RayTaskError(Exception):
    def __init__(self, cause):
        super().__init__(str(cause))
        self.cause = cause


class FakeRay(types.ModuleType):
    """The module `ray`.

    Args:
        fails: what `init` raises.
        dies: numbers of the calls of `open` or `run`, counted over all workers, in which the
            worker dies.
        cores: of each node.
    """

    exceptions = types.SimpleNamespace(RayActorError=RayActorError, RayTaskError=RayTaskError)

    def __init__(self, fails=None, dies=(), cores=(2,)):
        super().__init__("ray")
        self.fails, self.dies, self.cores = fails, frozenset(dies), cores
        self.address, self.up = "", False
        self.n_calls = 0
        self.n_workers = 0
        self.random = random.Random(1)

    def init(self, address, **options):
        if self.fails:
            raise self.fails
        self.address, self.up = address, True

    def shutdown(self):
        self.up = False

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": float(n)}} for n in self.cores]

    def remote(self, **options):
        def make(kind):
            def actor(*arguments):
                self.n_workers += 1
                return _Actor(kind(*arguments))

            return types.SimpleNamespace(remote=actor)

        return make

    def wait(self, references, num_returns, timeout):
        chosen = self.random.choice(references)
        return [chosen], [one for one in references if one is not chosen]

    def get(self, reference):
        self.n_calls += 1
        if self.n_calls in self.dies:
            reference.actor.dead = True
        if reference.actor.dead:
            raise RayActorError("the actor died")
        try:
            return reference.call()
        except Exception as error:
            raise RayTaskError(error) from error


class _Actor:
    def __init__(self, made):
        self.made = made
        self.dead = False

    def __getattr__(self, name):
        def remote(*arguments):
            method = getattr(self.made, name)
            return _Reference(self, lambda: method(*arguments))

        return types.SimpleNamespace(remote=remote)


class _Reference:
    def __init__(self, actor, call):
        self.actor = actor
        self.call = call
