"""Benchmark of the embedded server, compared with direct calls of the same SavedModel.

The server, the direct calls and the clients are three processes; compared variants run in turns.
All parts but `engines` score by TensorFlow on both sides.
Creates its own models and faces. Linux only.

    python benchmarks/serving.py                 # about half an hour on two cores
    python benchmarks/serving.py --only swap     # one part; other results are kept
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package beside this folder

import urllib3
from serving_load import CLIENTS, Load, for_seconds, make_faces, run_clients
from serving_processes import read_rss_mb, run_export, start, time_calls

HERE = Path(__file__).parent
NAME = "detector"
FACE_SIZE = 299  # of the sent files, for both models
TARGETS = {  # set before the first run
    "throughput": ("faces/s of the server / faces/s of direct calls", "at least", 0.90),
    "overhead_ms": ("overhead of a request with one face, p50, ms", "at most", 5.0),
    "decoder": ("time of both outputs / time of the scores alone", "at least", 1.2),
    "growth_mb": ("memory growth during the second half of the requests, MB", "at most", 20.0),
    "failed": ("failed requests while a version is replaced", "at most", 0),
}


def main() -> None:
    """Run the requested parts and write the results."""
    arguments = _parse()
    from face_report import describe_machine

    out = Path(arguments.out)
    report = json.loads(out.read_text(encoding="utf-8")) if arguments.only and out.is_file() else {}
    report["machine"] = describe_machine() | {"cores": str(os.cpu_count())}
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as directory:
        for name, (measure, size) in PARTS.items():
            if arguments.only not in ("", name):
                continue
            model = Path(directory) / size / NAME
            if not model.is_dir():
                _log(f"exporting the {size} model")
                run_export(model, getattr(arguments, size))
            _log(name)
            report[name] = measure(model, arguments)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    page = render(report)
    out.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)


def measure_load(model: Path, arguments: argparse.Namespace) -> dict:
    """Measure requests of one face for several numbers of clients."""
    faces = make_faces(1, FACE_SIZE)
    rows = []
    with start("serve", model) as (_, address):
        for transport, make in CLIENTS.items():
            for count in arguments.clients:
                clients = [make(address, NAME, faces) for _ in range(count)]
                load = run_clients(clients, _from_first_request(arguments.seconds))
                row = {"transport": transport, "clients": count}
                row |= {"requests": len(load.latencies_s)}
                row |= {"per_s": round(load.per_s, 2), "failed": len(load.errors)}
                row |= {f"p{p}_ms": round(load.quantile_ms(p / 100), 1) for p in (50, 99)}
                rows.append(row)
    return {"size": arguments.size, "seconds": arguments.seconds, "rows": rows}


def measure_throughput(model: Path, arguments: argparse.Namespace) -> dict:
    """Time whole batches in turns: direct calls, and two clients, so that one always waits."""
    size, count = arguments.batch_size, arguments.batches
    faces = make_faces(size, FACE_SIZE)
    per_s: dict[str, list[float]] = {"direct": [], **{transport: [] for transport in CLIENTS}}
    with (
        start("serve", model) as (_, address),
        start("call", model, arguments.size) as (caller, _),
    ):
        for _ in range(arguments.turns):
            seconds = _time_direct(caller, "serving_default", size, count)
            per_s["direct"].append(round(size * count / sum(seconds), 3))
            for transport, make in CLIENTS.items():
                clients = [make(address, NAME, faces) for _ in range(2)]
                load = run_clients(clients, lambda started: started < count)
                _check(load)
                per_s[transport].append(round(size * load.per_s, 3))
    return {"size": arguments.size, "batch_size": size, "batches": count, "per_s": per_s}


def measure_overhead(model: Path, arguments: argparse.Namespace) -> dict:
    """Time single faces in turns: direct calls, and one client."""
    faces = make_faces(1, FACE_SIZE)
    p50_ms: dict[str, list[float]] = {"direct": [], **{transport: [] for transport in CLIENTS}}
    size = getattr(arguments, model.parent.name)
    with start("serve", model) as (_, address), start("call", model, size) as (caller, _):
        for _ in range(arguments.turns):
            seconds = _time_direct(caller, "serving_default", 1, arguments.calls)
            p50_ms["direct"].append(round(Load(seconds).quantile_ms(0.5), 3))
            for transport, make in CLIENTS.items():
                clients = [make(address, NAME, faces)]
                load = run_clients(clients, lambda started: started < arguments.calls)
                _check(load)
                p50_ms[transport].append(round(load.quantile_ms(0.5), 3))
    return {"size": size, "calls": arguments.calls, "p50_ms": p50_ms}


def measure_engines(model: Path, arguments: argparse.Namespace) -> dict:
    """Time batches and single faces over gRPC in turns: a server with each backend."""
    size, count = arguments.batch_size, arguments.batches
    faces = make_faces(size, FACE_SIZE)
    rows: dict[str, dict] = {}
    with start("serve", model) as (_, own), start("serve-openvino", model) as (_, openvino):
        for address in (own, openvino):
            engine = _read_engine(address)
            rows[engine] = {"address": address, "per_s": [], "p50_ms": []}
        for _ in range(arguments.turns):
            for row in rows.values():
                batches = [CLIENTS["gRPC"](row["address"], NAME, faces)]
                load = run_clients(batches, lambda started: started < count)
                _check(load)
                row["per_s"].append(round(size * load.per_s, 3))
                single = [CLIENTS["gRPC"](row["address"], NAME, faces[:1])]
                load = run_clients(single, lambda started: started < arguments.calls)
                _check(load)
                row["p50_ms"].append(round(load.quantile_ms(0.5), 3))
    engines = {
        engine: {name: row[name] for name in ("per_s", "p50_ms")} for engine, row in rows.items()
    }
    return {"size": arguments.size, "batch_size": size, "engines": engines}


def measure_decoder(model: Path, arguments: argparse.Namespace) -> dict:
    """Time the signature of the scores alone and the network with both outputs, in turns."""
    seconds: dict[str, list[float]] = {"faces": [], "both": []}
    with start("call", model, arguments.size) as (caller, _):
        for _ in range(arguments.turns):
            for name, medians in seconds.items():
                each = _time_direct(caller, name, arguments.batch_size, arguments.batches)
                medians.append(round(statistics.median(each), 4))
    return {"size": arguments.size, "batch_size": arguments.batch_size, "seconds": seconds}


def measure_memory(model: Path, arguments: argparse.Namespace) -> dict:
    """Measure the memory of the server over many requests, half of them over REST."""
    faces = make_faces(1, FACE_SIZE)
    total = arguments.requests
    step = max(1, total // 100)
    rss_mb = []
    with start("serve", model) as (process, address):

        def should_continue(started: int) -> bool:
            if started % step == 0 and started // step == len(rss_mb):
                rss_mb.append(round(read_rss_mb(process), 1))
            return started < total

        makers = list(CLIENTS.values())
        clients = [makers[i % 2](address, NAME, faces) for i in range(8)]
        load = run_clients(clients, should_continue)
    _check(load)
    return {"size": arguments.small, "requests": len(load.latencies_s), "rss_mb": rss_mb}


def measure_swap(model: Path, arguments: argparse.Namespace) -> dict:
    """Add a second version while clients send requests."""
    faces = make_faces(1, FACE_SIZE)
    with start("serve", model) as (_, address):
        stopped = threading.Event()
        makers = list(CLIENTS.values())
        clients = [makers[i % 2](address, NAME, faces) for i in range(8)]
        loads = []
        sending = threading.Thread(
            target=lambda: loads.append(run_clients(clients, lambda _: not stopped.is_set()))
        )
        sending.start()
        try:
            time.sleep(arguments.before_swap)
            # Under another name first, so that a partial copy is never loaded as a version.
            shutil.copytree(model / "1", model / "copying")
            (model / "copying").rename(model / "2")
            start_time = time.perf_counter()
            while _read_version(address) != "2":
                if time.perf_counter() - start_time > 120:
                    sys.exit("Expected version 2 to be served within 120 s; got version 1.")
                time.sleep(0.1)
            load_s = time.perf_counter() - start_time
            time.sleep(arguments.before_swap)
        finally:
            stopped.set()
            sending.join()
            shutil.rmtree(model / "2", ignore_errors=True)
    (load,) = loads
    return {
        "size": arguments.small,
        "requests": len(load.latencies_s),
        "failed": len(load.errors),
        "first_error": load.errors[0] if load.errors else "",
        "load_s": round(load_s, 2),
        "longest_ms": round(load.quantile_ms(1.0), 1),
    }


# By name: the function, and the argument with the image size; the small model comes last.
PARTS = {
    "load": (measure_load, "size"),
    "throughput": (measure_throughput, "size"),
    "overhead": (measure_overhead, "size"),
    "engines": (measure_engines, "size"),
    "decoder": (measure_decoder, "size"),
    "overhead_small": (measure_overhead, "small"),
    "memory": (measure_memory, "small"),
    "swap": (measure_swap, "small"),
}


def _from_first_request(seconds: float) -> Callable[[int], bool]:
    """Return a `should_continue` that stops after a time from the first timed request."""
    state: list[Callable[[int], bool]] = []

    def should_continue(started: int) -> bool:
        if not state:
            state.append(for_seconds(seconds))
        return state[0](started)

    return should_continue


def _time_direct(caller, name: str, batch_size: int, calls: int) -> list[float]:
    return time_calls(caller, name=name, batch_size=batch_size, calls=calls, face_size=FACE_SIZE)


def _check(load: Load) -> None:
    if load.errors:
        sys.exit(
            f"Expected every request to be answered; {len(load.errors)} were not: first with "
            f"{load.errors[0]}."
        )


def _read_engine(address: dict) -> str:
    from jdfd_keras.client import connect
    from jdfd_keras.inference.engine import Engine

    with connect(f"{address['url']}/v1/models/{NAME}") as client:
        return Engine.from_dict(client.engine).describe()


def _read_version(address: dict) -> str:
    url = f"{address['url']}/v1/models/{NAME}/metadata"
    return urllib3.request("GET", url, retries=False, timeout=60.0).json()["model_spec"]["version"]


def measure_growth(rss_mb: list[float]) -> float:
    """Compute the growth over the second half, from medians of its first and last fifth."""
    half = rss_mb[len(rss_mb) // 2 :]
    fifth = max(1, len(half) // 5)
    return statistics.median(half[-fifth:]) - statistics.median(half[:fifth])


def compare_with_targets(report: dict) -> dict[str, float]:
    """Compute the quantities of TARGETS from a report, for the slower of both transports."""
    measured = {}
    if throughput := report.get("throughput"):
        per_s = {name: statistics.median(each) for name, each in throughput["per_s"].items()}
        measured["throughput"] = min(per_s[name] for name in CLIENTS) / per_s["direct"]
    overheads = [
        report[name]["p50_ms"] for name in ("overhead", "overhead_small") if name in report
    ]
    if overheads:
        measured["overhead_ms"] = max(
            max(_compute_overheads(p50_ms).values()) for p50_ms in overheads
        )
    if decoder := report.get("decoder"):
        seconds = {name: statistics.median(each) for name, each in decoder["seconds"].items()}
        measured["decoder"] = seconds["both"] / seconds["faces"]
    if memory := report.get("memory"):
        measured["growth_mb"] = measure_growth(memory["rss_mb"])
    if swap := report.get("swap"):
        measured["failed"] = swap["failed"]
    return measured


def _compute_overheads(p50_ms: dict[str, list[float]]) -> dict[str, float]:
    direct = statistics.median(p50_ms["direct"])
    return {name: statistics.median(p50_ms[name]) - direct for name in CLIENTS}


def render(report: dict) -> str:
    """Return the results and the targets as Markdown."""
    from tables import table

    machine = report["machine"]
    lines = [
        "# Serving",
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores; Python "
        f"{machine['python']}.",
    ]
    rows = []
    for name, value in compare_with_targets(report).items():
        measurement, side, bound = TARGETS[name]
        is_met = value <= bound if side == "at most" else value >= bound
        measured = f"{value:.3f}".rstrip("0").rstrip(".")
        met = "met" if is_met else "**not met**"
        rows.append((measurement, f"{side} {bound:g}", measured, met))
    lines.append(table(("measurement", "target", "measured", ""), rows, "lrrl"))
    for name, render_section in SECTIONS.items():
        if name in report:
            lines += render_section(report[name])
    return "\n\n".join(lines) + "\n"


def _render_load(load: dict) -> list[str]:
    from tables import table

    names = {"REST": "REST, JPEG in base64", "gRPC": "gRPC, JPEG"}
    rows = [
        (
            names[row["transport"]],
            row["clients"],
            f"{row['per_s']:.2f}",
            f"{row['p50_ms']:,.0f}",
            f"{row['p99_ms']:,.0f}",
            row["failed"],
        )
        for row in load["rows"]
    ]
    return [
        "## Load",
        f"One face of {FACE_SIZE} pixels per request, a model of {load['size']} pixels; for "
        f"{load['seconds']:g} s each client sends its next request after the last response.",
        table(
            ("transport", "clients", "requests/s", "p50, ms", "p99, ms", "failed"), rows, "lrrrrr"
        ),
    ]


def _render_throughput(throughput: dict) -> list[str]:
    from tables import table

    per_s = {name: statistics.median(each) for name, each in throughput["per_s"].items()}
    names = {"direct": "direct calls of the SavedModel", "REST": "REST", "gRPC": "gRPC"}
    rows = [
        (names[name], f"{value:.2f}", f"{value / per_s['direct']:.3f}")
        for name, value in per_s.items()
    ]
    return [
        "## Throughput",
        f"Batches of {throughput['batch_size']} faces, {throughput['batches']} per turn, medians "
        f"of {len(throughput['per_s']['direct'])} turns; two clients, so that a batch always "
        "waits.",
        table(("method", "faces/s", "/ direct calls"), rows, "lrr"),
    ]


def _render_overhead(overhead: dict) -> list[str]:
    from tables import table

    direct = statistics.median(overhead["p50_ms"]["direct"])
    rows = [
        (name, f"{direct:.2f}", f"{direct + extra:.2f}", f"{extra:.2f}")
        for name, extra in _compute_overheads(overhead["p50_ms"]).items()
    ]
    return [
        f"## Overhead, model of {overhead['size']} pixels",
        f"One face at a time; medians of {len(overhead['p50_ms']['direct'])} turns of "
        f"{overhead['calls']} calls.",
        table(
            ("transport", "direct call, p50, ms", "request, p50, ms", "overhead, ms"), rows, "lrrr"
        ),
    ]


def _render_engines(engines: dict) -> list[str]:
    from tables import table

    medians = {
        engine: [statistics.median(row[name]) for name in ("per_s", "p50_ms")]
        for engine, row in engines["engines"].items()
    }
    slowest = next(iter(medians.values()))[0]
    rows = [
        (engine, f"{per_s:.2f}", f"{per_s / slowest:.2f}", f"{p50_ms:.1f}")
        for engine, (per_s, p50_ms) in medians.items()
    ]
    return [
        "## Engines",
        f"Batches of {engines['batch_size']} faces and single faces over gRPC, a model of "
        f"{engines['size']} pixels; medians of turns.",
        table(("engine", "faces/s", "/ TensorFlow", "one face, p50, ms"), rows, "lrrr"),
    ]


def _render_decoder(decoder: dict) -> list[str]:
    seconds = {name: statistics.median(each) for name, each in decoder["seconds"].items()}
    return [
        "## Decoder",
        f"A batch of {decoder['batch_size']} faces takes {seconds['faces']:.2f} s with the "
        f"signature `faces`, which has no decoder, and {seconds['both']:.2f} s with the network "
        f"and both outputs in one call; medians of {len(decoder['seconds']['faces'])} turns.",
    ]


def _render_memory(memory: dict) -> list[str]:
    rss_mb = memory["rss_mb"]
    return [
        "## Memory",
        f"{memory['requests']:,} requests of one face by 8 clients, half of them over REST, to a "
        f"model of {memory['size']} pixels. The server used {rss_mb[0]:.0f} MB at the start, "
        f"{rss_mb[len(rss_mb) // 2]:.0f} MB in the middle and {rss_mb[-1]:.0f} MB at the end.",
    ]


def _render_swap(swap: dict) -> list[str]:
    return [
        "## Swap",
        f"8 clients, half of them over REST, got {swap['requests']:,} responses from a model of "
        f"{swap['size']} pixels while a second version was added; {swap['failed']} requests "
        f"failed. The new version was served after {swap['load_s']:.1f} s; the longest request "
        f"took {swap['longest_ms']:,.0f} ms.",
    ]


SECTIONS = {
    "load": _render_load,
    "throughput": _render_throughput,
    "overhead": _render_overhead,
    "overhead_small": _render_overhead,
    "engines": _render_engines,
    "decoder": _render_decoder,
    "memory": _render_memory,
    "swap": _render_swap,
}


def _log(message: str) -> None:
    print(f"{message} ...", file=sys.stderr, flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Benchmark of the embedded server.")
    parser.add_argument("--only", choices=tuple(PARTS), default="", help="run one part")
    parser.add_argument(
        "--size", type=int, default=299, help="image size of the model (%(default)s)"
    )
    parser.add_argument(
        "--small", type=int, default=71, help="image size of the small model (%(default)s)"
    )
    parser.add_argument(
        "--clients", type=int, nargs="+", default=[1, 8, 64], help="numbers of clients"
    )
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="duration of each load (%(default)s)"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="faces per batch (%(default)s)")
    parser.add_argument("--batches", type=int, default=6, help="batches per turn (%(default)s)")
    parser.add_argument("--calls", type=int, default=50, help="calls per turn (%(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="turns of each method (%(default)s)")
    parser.add_argument(
        "--requests", type=int, default=10_000, help="requests of the memory test (%(default)s)"
    )
    parser.add_argument(
        "--before-swap",
        type=float,
        default=5.0,
        help="seconds before and after the swap (%(default)s)",
    )
    parser.add_argument("--scratch", help="temporary folder")
    parser.add_argument("--out", default=HERE / "results" / "serving.json", help="JSON file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
