"""How fast the embedded server answers, beside bare calls of the same SavedModel.

The server, the bare calls and the clients are three processes; what is compared runs by turns.
Makes its own models and faces. Linux only.

    python benchmarks/serving.py                 # half an hour or so on two cores
    python benchmarks/serving.py --only swap     # one part; the results of the others stay
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
from serving_processes import ask, read_rss_mb, run_export, start

HERE = Path(__file__).parent
NAME = "detector"
FACE_SIZE = 299  # of the files that are sent, whatever the model makes of them
REACH = {  # written down before the first run
    "throughput": ("faces/s served over those of a bare loop", "at least", 0.90),
    "overhead_ms": ("a request of one face beyond the bare call, p50, ms", "at most", 5.0),
    "decoder": ("time of both outputs over that of the scores alone", "at least", 1.2),
    "growth_mb": ("growth of memory over the second half of the requests, MB", "at most", 20.0),
    "failed": ("requests that failed in the swap of a version", "at most", 0),
}


def main() -> None:
    """Run the parts that were asked for and write what came."""
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
                _say(f"exporting the {size} model")
                run_export(model, getattr(arguments, size))
            _say(name)
            report[name] = measure(model, arguments)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    page = render(report)
    out.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)


def measure_load(model: Path, arguments: argparse.Namespace) -> dict:
    """Count answers of single faces by the number of clients."""
    faces = make_faces(1, FACE_SIZE)
    rows = []
    with start("serve", model) as (_, address):
        for wire, make in CLIENTS.items():
            for count in arguments.clients:
                clients = [make(address, NAME, faces) for _ in range(count)]
                load = run_clients(clients, _once_begun(arguments.seconds))
                row = {"wire": wire, "clients": count, "requests": len(load.seconds)}
                row |= {"per_s": round(load.per_s, 2), "failed": len(load.failed)}
                row |= {f"p{p}_ms": round(load.quantile_ms(p / 100), 1) for p in (50, 99)}
                rows.append(row)
    return {"size": arguments.size, "seconds": arguments.seconds, "rows": rows}


def measure_throughput(model: Path, arguments: argparse.Namespace) -> dict:
    """Time whole batches by turns: bare calls, and two clients, so that one always waits."""
    size, count = arguments.batch_size, arguments.batches
    faces = make_faces(size, FACE_SIZE)
    per_s: dict[str, list[float]] = {"bare": [], **{wire: [] for wire in CLIENTS}}
    with (
        start("serve", model) as (_, address),
        start("call", model, arguments.size) as (caller, _),
    ):
        for _ in range(arguments.turns):
            seconds = _ask_bare(caller, "serving_default", size, count)
            per_s["bare"].append(round(size * count / sum(seconds), 3))
            for wire, make in CLIENTS.items():
                clients = [make(address, NAME, faces) for _ in range(2)]
                load = run_clients(clients, lambda begun: begun < count)
                _check(load)
                per_s[wire].append(round(size * load.per_s, 3))
    return {"size": arguments.size, "batch_size": size, "batches": count, "per_s": per_s}


def measure_overhead(model: Path, arguments: argparse.Namespace) -> dict:
    """Time single faces by turns: bare calls, and one client."""
    faces = make_faces(1, FACE_SIZE)
    p50_ms: dict[str, list[float]] = {"bare": [], **{wire: [] for wire in CLIENTS}}
    size = getattr(arguments, model.parent.name)
    with start("serve", model) as (_, address), start("call", model, size) as (caller, _):
        for _ in range(arguments.turns):
            seconds = _ask_bare(caller, "serving_default", 1, arguments.calls)
            p50_ms["bare"].append(round(Load(seconds).quantile_ms(0.5), 3))
            for wire, make in CLIENTS.items():
                clients = [make(address, NAME, faces)]
                load = run_clients(clients, lambda begun: begun < arguments.calls)
                _check(load)
                p50_ms[wire].append(round(load.quantile_ms(0.5), 3))
    return {"size": size, "calls": arguments.calls, "p50_ms": p50_ms}


def measure_decoder(model: Path, arguments: argparse.Namespace) -> dict:
    """Time the signature of the scores alone and the network with both outputs, by turns."""
    seconds: dict[str, list[float]] = {"faces": [], "both": []}
    with start("call", model, arguments.size) as (caller, _):
        for _ in range(arguments.turns):
            for name, of in seconds.items():
                each = _ask_bare(caller, name, arguments.batch_size, arguments.batches)
                of.append(round(statistics.median(each), 4))
    return {"size": arguments.size, "batch_size": arguments.batch_size, "seconds": seconds}


def measure_memory(model: Path, arguments: argparse.Namespace) -> dict:
    """Watch the memory of the server over many requests, every second one over REST."""
    faces = make_faces(1, FACE_SIZE)
    total = arguments.requests
    step = max(1, total // 100)
    rss_mb = []
    with start("serve", model) as (process, address):

        def go_on(begun: int) -> bool:
            if begun % step == 0 and begun // step == len(rss_mb):
                rss_mb.append(round(read_rss_mb(process), 1))
            return begun < total

        makers = list(CLIENTS.values())
        load = run_clients([makers[i % 2](address, NAME, faces) for i in range(8)], go_on)
    _check(load)
    return {"size": arguments.small, "requests": len(load.seconds), "rss_mb": rss_mb}


def measure_swap(model: Path, arguments: argparse.Namespace) -> dict:
    """Put a second version into the folder while clients go on asking."""
    faces = make_faces(1, FACE_SIZE)
    with start("serve", model) as (_, address):
        stopped = threading.Event()
        makers = list(CLIENTS.values())
        clients = [makers[i % 2](address, NAME, faces) for i in range(8)]
        loads = []
        asking = threading.Thread(
            target=lambda: loads.append(run_clients(clients, lambda _: not stopped.is_set()))
        )
        asking.start()
        try:
            time.sleep(arguments.before_swap)
            # Under another name first: nothing half copied is ever taken for a version.
            shutil.copytree(model / "1", model / "copying")
            (model / "copying").rename(model / "2")
            begun = time.perf_counter()
            while _read_version(address) != "2":
                if time.perf_counter() - begun > 120:
                    sys.exit("Expected version 2 to be served within 120 s; it was not.")
                time.sleep(0.1)
            took_s = time.perf_counter() - begun
            time.sleep(arguments.before_swap)
        finally:
            stopped.set()
            asking.join()
            shutil.rmtree(model / "2", ignore_errors=True)
    (load,) = loads
    return {
        "size": arguments.small,
        "requests": len(load.seconds),
        "failed": len(load.failed),
        "first_failure": load.failed[0] if load.failed else "",
        "took_s": round(took_s, 2),
        "longest_ms": round(load.quantile_ms(1.0), 1),
    }


# Those of the small model last: it is exported once. The size is the name of an argument.
PARTS = {
    "load": (measure_load, "size"),
    "throughput": (measure_throughput, "size"),
    "overhead": (measure_overhead, "size"),
    "decoder": (measure_decoder, "size"),
    "overhead_small": (measure_overhead, "small"),
    "memory": (measure_memory, "small"),
    "swap": (measure_swap, "small"),
}


def _once_begun(seconds: float) -> Callable[[int], bool]:
    """Go on for a time from the first request, which clients send after they have connected."""
    state: list[Callable[[int], bool]] = []

    def go_on(begun: int) -> bool:
        if not state:
            state.append(for_seconds(seconds))
        return state[0](begun)

    return go_on


def _ask_bare(caller, name: str, batch_size: int, calls: int) -> list[float]:
    return ask(caller, name=name, batch_size=batch_size, calls=calls, face_size=FACE_SIZE)


def _check(load: Load) -> None:
    if load.failed:
        sys.exit(
            f"Expected every request to be answered; {len(load.failed)} were not: first with "
            f"{load.failed[0]}."
        )


def _read_version(address: dict) -> str:
    url = f"{address['url']}/v1/models/{NAME}/metadata"
    return urllib3.request("GET", url, retries=False, timeout=60.0).json()["model_spec"]["version"]


def find_growth(rss_mb: list[float]) -> float:
    """Tell how much memory grew over the second half: medians of its first and last fifth."""
    half = rss_mb[len(rss_mb) // 2 :]
    fifth = max(1, len(half) // 5)
    return statistics.median(half[-fifth:]) - statistics.median(half[:fifth])


def find_reached(report: dict) -> dict[str, float]:
    """Work out what REACH speaks of, as far as it was measured; the worse of two wires counts."""
    came = {}
    if throughput := report.get("throughput"):
        per_s = {way: statistics.median(of) for way, of in throughput["per_s"].items()}
        came["throughput"] = min(per_s[wire] for wire in CLIENTS) / per_s["bare"]
    overheads = [
        report[name]["p50_ms"] for name in ("overhead", "overhead_small") if name in report
    ]
    if overheads:
        came["overhead_ms"] = max(max(_find_overheads(p50_ms).values()) for p50_ms in overheads)
    if decoder := report.get("decoder"):
        seconds = {name: statistics.median(of) for name, of in decoder["seconds"].items()}
        came["decoder"] = seconds["both"] / seconds["faces"]
    if memory := report.get("memory"):
        came["growth_mb"] = find_growth(memory["rss_mb"])
    if swap := report.get("swap"):
        came["failed"] = swap["failed"]
    return came


def _find_overheads(p50_ms: dict[str, list[float]]) -> dict[str, float]:
    bare = statistics.median(p50_ms["bare"])
    return {wire: statistics.median(p50_ms[wire]) - bare for wire in CLIENTS}


def render(report: dict) -> str:
    """Write what came beside what was asked."""
    from jdfd_keras.reporting.markdown import Marked, table

    machine = report["machine"]
    lines = [
        "# Serving",
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores; Python "
        f"{machine['python']}.",
    ]
    rows = []
    for name, value in find_reached(report).items():
        measured, side, bound = REACH[name]
        is_met = value <= bound if side == "at most" else value >= bound
        came = f"{value:.3f}".rstrip("0").rstrip(".")
        met = "met" if is_met else Marked("**not met**")
        rows.append((measured, f"{side} {bound:g}", came, met))
    lines.append(table(("measured", "asked", "came", ""), rows, "lrrl"))
    for name, give in SECTIONS.items():
        if name in report:
            lines += give(report[name])
    return "\n\n".join(lines) + "\n"


def _render_load(load: dict) -> list[str]:
    from jdfd_keras.reporting.markdown import table

    names = {"REST": "REST, JPEG in base64", "gRPC": "gRPC, JPEG"}
    rows = [
        (
            names[row["wire"]],
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
        f"One face of {FACE_SIZE} pixels a request, a model of {load['size']} pixels; each client "
        f"sends its next request when the last is answered, {load['seconds']:g} s.",
        table(("over", "clients", "requests/s", "p50, ms", "p99, ms", "failed"), rows, "lrrrrr"),
    ]


def _render_throughput(throughput: dict) -> list[str]:
    from jdfd_keras.reporting.markdown import table

    per_s = {way: statistics.median(of) for way, of in throughput["per_s"].items()}
    names = {"bare": "the SavedModel's function in a loop", "REST": "REST", "gRPC": "gRPC"}
    rows = [
        (names[way], f"{value:.2f}", f"{value / per_s['bare']:.3f}") for way, value in per_s.items()
    ]
    return [
        "## Throughput",
        f"Batches of {throughput['batch_size']} faces, {throughput['batches']} a turn, medians of "
        f"{len(throughput['per_s']['bare'])} turns; two clients, so that a batch always waits.",
        table(("way", "faces/s", "over the loop"), rows, "lrr"),
    ]


def _render_overhead(overhead: dict) -> list[str]:
    from jdfd_keras.reporting.markdown import table

    bare = statistics.median(overhead["p50_ms"]["bare"])
    rows = [
        (wire, f"{bare:.2f}", f"{bare + beyond:.2f}", f"{beyond:.2f}")
        for wire, beyond in _find_overheads(overhead["p50_ms"]).items()
    ]
    return [
        f"## Overhead, model of {overhead['size']} pixels",
        f"One face at a time; medians of {len(overhead['p50_ms']['bare'])} turns of "
        f"{overhead['calls']} calls.",
        table(("over", "bare call, p50, ms", "request, p50, ms", "beyond, ms"), rows, "lrrr"),
    ]


def _render_decoder(decoder: dict) -> list[str]:
    seconds = {name: statistics.median(of) for name, of in decoder["seconds"].items()}
    return [
        "## Decoder",
        f"A batch of {decoder['batch_size']} faces takes {seconds['faces']:.2f} s by the signature "
        f"`faces`, which has no decoder, and {seconds['both']:.2f} s by the network with both "
        f"outputs in one call; medians of {len(decoder['seconds']['faces'])} turns.",
    ]


def _render_memory(memory: dict) -> list[str]:
    rss_mb = memory["rss_mb"]
    return [
        "## Memory",
        f"{memory['requests']:,} requests of one face by 8 clients, half of them over REST, to a "
        f"model of {memory['size']} pixels. The server held {rss_mb[0]:.0f} MB at the begin, "
        f"{rss_mb[len(rss_mb) // 2]:.0f} MB in the middle and {rss_mb[-1]:.0f} MB at the end.",
    ]


def _render_swap(swap: dict) -> list[str]:
    return [
        "## Swap",
        f"8 clients, half of them over REST, got {swap['requests']:,} answers of a model of "
        f"{swap['size']} pixels while its second version was put beside the first; "
        f"{swap['failed']} requests failed. It was served {swap['took_s']:.1f} s after it was "
        f"there; the longest request took {swap['longest_ms']:,.0f} ms.",
    ]


SECTIONS = {
    "load": _render_load,
    "throughput": _render_throughput,
    "overhead": _render_overhead,
    "overhead_small": _render_overhead,
    "decoder": _render_decoder,
    "memory": _render_memory,
    "swap": _render_swap,
}


def _say(words: str) -> None:
    print(f"{words} ...", file=sys.stderr, flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How fast the embedded server answers.")
    parser.add_argument("--only", choices=tuple(PARTS), default="", help="one part")
    parser.add_argument("--size", type=int, default=299, help="pixels of the model (%(default)s)")
    parser.add_argument("--small", type=int, default=71, help="of the small model (%(default)s)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64], help="at a time")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each load (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="faces (%(default)s)")
    parser.add_argument("--batches", type=int, default=6, help="a turn (%(default)s)")
    parser.add_argument("--calls", type=int, default=50, help="of one face a turn (%(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="of each way (%(default)s)")
    parser.add_argument("--requests", type=int, default=10_000, help="in a row (%(default)s)")
    parser.add_argument(
        "--before-swap", type=float, default=5.0, help="seconds before and after (%(default)s)"
    )
    parser.add_argument("--scratch", help="folder for what is made; the system's if not given")
    parser.add_argument("--out", default=HERE / "results" / "serving.json", help="JSON file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
