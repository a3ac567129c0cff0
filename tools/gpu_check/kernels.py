"""Single operations by the device's clock: recordings of many launches over copies of the weights
that together exceed its cache twice."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from .section import DEFAULT_CACHE_BYTES, Report, median, native, ratio

SMALL_ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16)


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    shapes: tuple[tuple[int, int], ...] = (  # rows of the matrix, columns
        (1536, 1536),
        (8960, 1536),
        (1536, 8960),
        (4096, 14336),
        (151936, 1536),
    )
    rows: tuple[int, ...] = SMALL_ROWS
    prompt_rows: tuple[int, ...] = (32, 128, 512)
    prompt_shape: tuple[int, int] = (8960, 1536)
    input_n_in: tuple[int, ...] = (1536, 4096, 8960)
    heads: tuple[tuple[str, int, int, int], ...] = (  # name, heads, kv heads, head size
        ("1.5B", 12, 2, 128),
        ("8B", 32, 8, 128),
    )
    positions: tuple[int, ...] = (256, 1024, 4096)
    cache_rows: tuple[int, ...] = (1, 4, 8, 16)
    head_shape: tuple[int, int] = (151936, 1536)
    most_pool_bytes: int = 4 << 30
    copy_bytes: int = 256 << 20
    most_launches: int = 500
    repeats: int = 5
    warm_up_seconds: float = 1.0
    formats: tuple[str, ...] = field(default=())  # all


TINY = Sizes(
    shapes=((32, 256), (16, 512)),
    rows=(1, 2, 16),
    prompt_rows=(33,),
    prompt_shape=(32, 256),
    input_n_in=(256,),
    heads=(("tiny", 4, 2, 32),),
    positions=(260,),
    cache_rows=(1, 3),
    head_shape=(2064, 256),
    most_pool_bytes=4 << 20,
    copy_bytes=1 << 16,
    most_launches=2,
    repeats=1,
    warm_up_seconds=0,
)


class Timing:
    """The timer with what it needs to know of the device."""

    def __init__(self, device: str, sizes: Sizes, report: Report) -> None:
        self.module = native()
        self.sizes = sizes
        self.report = report
        # A timer with a small pool says what is free; the pool proper leaves half of it.
        info = self.module.KernelTimer(device, 1 << 20).info
        self.cache_bytes = info["cache_bytes"] or DEFAULT_CACHE_BYTES
        if device == "emulated":
            self.cache_bytes = 1 << 16
        self.pool_bytes = min(sizes.most_pool_bytes, info["free_bytes"] // 2)
        self.timer = self.module.KernelTimer(device, self.pool_bytes)
        n_bytes = min(sizes.copy_bytes, self.pool_bytes // 2)
        repeats = self.module.Repeats(min(8, sizes.most_launches), sizes.repeats)
        # Long enough for an idle device to raise its clocks.
        end = time.monotonic() + sizes.warm_up_seconds
        copies = self.timer.copy(n_bytes, repeats)
        while time.monotonic() < end:
            copies = self.timer.copy(n_bytes, repeats)
        self.copy_speed = 2 * n_bytes / (min(copies.ms) / 1000)
        report.set("device", info)
        report.set("clock", "device" if copies.device_clock else "host")
        report.set("copy_gb_s", self.copy_speed / 1e9)
        report.set("pool_mib", self.pool_bytes >> 20)

    def copies(self, n_bytes: int) -> int:
        """So many that they exceed the cache twice, at least four, at most what the pool holds."""
        wanted = max(4, math.ceil(2 * self.cache_bytes / n_bytes) + 1)
        return min(wanted, self.pool_bytes // n_bytes)

    def repeats(self, n_bytes: float, n_turns: int = 1) -> Any:
        """Launches of about two milliseconds, each copy at least once."""
        expected_ms = n_bytes / (0.4 * self.copy_speed) * 1000 + 0.003
        n = max(n_turns, math.ceil(2 / expected_ms))
        return self.module.Repeats(min(n, self.sizes.most_launches), self.sizes.repeats)

    def us(self, launches: Any) -> float:
        return 1000 * median(launches.ms)


def measure_products(timing: Timing) -> None:
    """us, T(M)/T(1) and the share of copies at one row, by format and shape."""
    module, sizes, report = timing.module, timing.sizes, timing.report
    names = sizes.formats or tuple(module.formats())
    first = [n for n in ("Q4_K", "Q6_K", "Q8_0", "Q4_0") if n in names]
    for name in (*first, *(n for n in names if n not in first)):
        dtype = module.formats()[name]
        for n_out, n_in in sizes.shapes:
            what = f"{name} {n_out} x {n_in}"
            if report.late(what):
                return
            n_bytes = module.packed_bytes(dtype, n_out, n_in)
            n_copies = timing.copies(n_bytes)
            if n_copies < 2:
                report.add("skipped", f"{what}: {n_bytes >> 20} MiB do not fit the pool twice")
                continue
            matrix = module.Matrix(dtype, n_out, n_in, n_copies)
            rows = list(sizes.rows)
            if (n_out, n_in) == sizes.prompt_shape:
                rows += sizes.prompt_rows
            us = {}
            try:
                for m in rows:
                    repeats = timing.repeats(n_bytes, n_copies)
                    us[m] = timing.us(timing.timer.linear(matrix, m, False, repeats))
            except Exception as problem:
                report.error(what, problem)
                if not us:
                    continue
            report.add(
                "products",
                {
                    "format": name,
                    "n_out": n_out,
                    "n_in": n_in,
                    "bytes": n_bytes,
                    "copies": n_copies,
                    "us": us,
                    "ratio": {m: ratio(t, us.get(1)) for m, t in us.items()},
                    "share": n_bytes / (us[1] / 1e6) / timing.copy_speed if 1 in us else None,
                },
            )


def measure_small(timing: Timing) -> None:
    """Launches that do nothing, and the preparation of inputs."""
    module, sizes, report = timing.module, timing.sizes, timing.report
    report.set("launch_us", timing.us(timing.timer.nothing(timing.repeats(0))))
    for n_in in sizes.input_n_in:
        for name in ("Q8_0", "Q4_K", "F16"):
            for norm in (False, True):
                if report.late("pack_input"):
                    return
                us = {}
                for m in (1, max(sizes.rows)):
                    dtypes = [module.formats()[name]]
                    us[m] = timing.us(
                        timing.timer.pack_input(dtypes, n_in, m, norm, timing.repeats(0))
                    )
                report.add("pack_input", {"n_in": n_in, "format": name, "norm": norm, "us": us})


def measure_caches(timing: Timing) -> None:
    """rope_store and attention: us by rows, and the share of copies in reading keys and values."""
    module, sizes, report = timing.module, timing.sizes, timing.report
    for name, n_heads, n_kv_heads, head_dim in sizes.heads:
        for kv_type in ("f16", "q8_0"):
            for n_positions in sizes.positions:
                what = f"attention {name} {kv_type} {n_positions}"
                if report.late(what):
                    return
                layer = module.layer_bytes(kv_type, n_kv_heads, head_dim)
                pages = -(-(n_positions + max(sizes.cache_rows)) // 256)
                n_layers = max(1, min(512, timing.copies(layer * pages)))
                shape = module.Cache(kv_type, n_heads, n_kv_heads, head_dim, n_positions, n_layers)
                read = layer * n_positions / 256
                entry: dict[str, Any] = {
                    "model": name, "type": kv_type, "positions": n_positions, "us": {},
                }  # fmt: skip
                try:
                    for m in sizes.cache_rows:
                        repeats = timing.repeats(read, n_layers)
                        entry["us"][m] = timing.us(timing.timer.attention(shape, m, False, repeats))
                    most = max(sizes.cache_rows)
                    tree = timing.timer.attention(shape, most, True, repeats)
                    entry["tree_us"] = {most: timing.us(tree)}
                    entry["share"] = read / (entry["us"][1] / 1e6) / timing.copy_speed
                    if n_positions == sizes.positions[0]:
                        rope = {
                            m: timing.us(
                                timing.timer.rope_store(shape, m, timing.repeats(0, n_layers))
                            )
                            for m in sizes.cache_rows
                        }
                        report.add("rope_store", {"model": name, "type": kv_type, "us": rope})
                except Exception as problem:
                    report.error(what, problem)
                report.add("attention", entry)


def measure_heads(timing: Timing) -> None:
    """The output head and, of it, what is not the product."""
    module, sizes, report = timing.module, timing.sizes, timing.report
    n_out, n_in = sizes.head_shape
    for name in ("Q6_K", "Q8_0"):
        if report.late(f"head {name}"):
            return
        dtype = module.formats()[name]
        n_bytes = module.packed_bytes(dtype, n_out, n_in)
        n_copies = timing.copies(n_bytes)
        if n_copies < 1:
            report.add("skipped", f"head {name}: {n_bytes >> 20} MiB do not fit the pool")
            continue
        matrix = module.Matrix(dtype, n_out, n_in, n_copies)
        repeats = timing.repeats(n_bytes, n_copies)
        for m in (1, max(sizes.rows)):
            try:
                whole = timing.us(timing.timer.head(matrix, m, 1, repeats))
                product = timing.us(timing.timer.linear(matrix, m, False, repeats))
            except Exception as problem:
                report.error(f"head {name}", problem)
                continue
            entry = {"format": name, "rows": m, "us": whole, "rest_us": whole - product}
            report.add("heads", entry)


def measure_gated(timing: Timing) -> None:
    """A pair of matrices as one operation, against two products."""
    module, report = timing.module, timing.report
    n_out, n_in = timing.sizes.prompt_shape
    for name in ("Q4_K", "Q8_0"):
        if report.late(f"gated {name}"):
            return
        dtype = module.formats()[name]
        n_bytes = 2 * module.packed_bytes(dtype, n_out, n_in)
        matrix = module.Matrix(dtype, n_out, n_in, max(1, timing.copies(n_bytes)))
        try:
            us = {
                m: timing.us(timing.timer.gated(matrix, m, timing.repeats(n_bytes)))
                for m in (1, max(timing.sizes.rows))
            }
        except Exception as problem:
            report.error(f"gated {name}", problem)
            continue
        share = n_bytes / (us[1] / 1e6) / timing.copy_speed
        report.add("gated", {"format": name, "n_out": n_out, "n_in": n_in, "us": us,
                             "share": share})  # fmt: skip


def run(report: Report, options: dict[str, Any]) -> None:
    timing = Timing(options["device"], TINY if options["tiny"] else Sizes(), report)
    measure_small(timing)
    measure_caches(timing)
    measure_heads(timing)
    measure_gated(timing)
    measure_products(timing)
