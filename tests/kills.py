"""prepare, train, predict --out and the file service, killed by SIGKILL at random moments.

    python tests/kills.py --scratch DIR                        # 200 kills; half an hour, two cores
    python tests/kills.py --scratch DIR --kills 8 --seed 1     # two of each
    python tests/kills.py --scratch DIR --only train           # other results of --out are kept

A command is started, killed after some of its items are finished, and started again, several times;
then it runs to its end. What was finished before a kill must be there after it and must not be made
again, and the result must be that of a run that nothing disturbed. Linux only.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

from tests.kill_commands import COMMANDS, Command, Prepare  # noqa: E402

NUM_SUBJECTS = 8
MOST_KILLS = 5  # of one run; then it finishes undisturbed
LONGEST_S = 0.4  # from a finished item to the kill
WAIT_S = 300.0


def run_kills(
    command: Command,
    scratch: Path,
    kills: int,
    rng: random.Random,
    save: Callable[[dict], None] = lambda _: None,
) -> dict:
    """Kill a command as often as stated, in as many runs as needed.

    Args:
        command: The command.
        scratch: A folder for its results.
        kills: Number of kills.
        rng: For the moments.
        save: Called with the result of all runs so far, after each.

    Returns:
        The kills with their moments, and what was lost, doubled or different.
    """
    scratch.mkdir(parents=True)
    whole = scratch / "undisturbed"
    command.finish(whole)
    moments, lost, doubled, different = [], [], [], []
    runs, result = 0, {}
    while len(moments) < kills:
        out = scratch / f"run{runs}"
        runs += 1
        before: dict[str, object] = {}
        for _ in range(min(rng.randint(2, MOST_KILLS), kills - len(moments))):
            start = time.monotonic()
            process = command.start(out)
            was_running = _wait_for(process, command, out, len(before) + rng.randint(1, 3), rng)
            alone = rng.random() < 0.5
            with contextlib.suppress(ProcessLookupError):  # ended just now
                (os.kill if alone else os.killpg)(process.pid, signal.SIGKILL)
            was_running &= process.wait() == -signal.SIGKILL
            if process.stdout:
                process.stdout.close()
            _wait_until_gone(process.pid)
            after = command.finished(out)
            if was_running:
                count = {"finished": "all" if after is None else len(after)}
                moments.append({"s": round(time.monotonic() - start, 2), "alone": alone} | count)
            if after is None or not was_running:
                break
            lost += [f"run {runs}: {name}" for name in before if name not in after]
            doubled += [f"run {runs}: {n}" for n in before if n in after and before[n] != after[n]]
            before = after
        command.finish(out)
        at_end = command.finished(out)
        if at_end is not None:
            lost += [f"run {runs}, end: {name}" for name in before if name not in at_end]
            changed = [n for n in before if n in at_end and before[n] != at_end[n]]
            doubled += [f"run {runs}, end: {name}" for name in changed]
        different += [f"run {runs}: {fault}" for fault in command.check(out, whole)]
        shutil.rmtree(out)
        print(f"{command.name}: {len(moments)} kills in {runs} runs", file=sys.stderr)
        faults = {"lost": lost, "doubled": doubled, "different": different}
        result = {"kills": len(moments), "runs": runs, **faults, "moments": moments}
        save(result)
    return result


def _wait_for(process, command: Command, out: Path, count: int, rng: random.Random) -> bool:
    """Wait for finished items and then a random time; return whether the process still runs."""
    end = time.monotonic() + WAIT_S
    while process.poll() is None and time.monotonic() < end:
        found = command.finished(out)
        if found is None or len(found) >= count:
            break
        time.sleep(0.01)
    time.sleep(rng.uniform(0, LONGEST_S))
    return process.poll() is None


def _wait_until_gone(group: int) -> None:
    """Wait until all processes of a killed command have ended, on their own if it died alone."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("processes of a killed command still run")


def make_inputs(scratch: Path) -> tuple[Path, Path]:
    """Make short clips of subjects from one portrait, and prepare them."""
    from skimage.data import astronaut

    from jdfd_keras.datasets.synthetic.clips import make_clips, vary_portrait

    clips, prepared = scratch / "clips", scratch / "prepared"
    for _ in make_clips(vary_portrait(astronaut(), NUM_SUBJECTS, 0), clips, num_frames=6, seed=0):
        pass
    Prepare(clips, prepared).finish(prepared)
    return clips, prepared


def render(result: dict) -> str:
    """Return the Markdown page of the results."""
    from tables import table

    machine, rows, total = result["machine"], [], Counter()
    for kind in COMMANDS:
        one = result[kind.name]
        alone = sum(moment["alone"] for moment in one["moments"])
        seconds = [moment["s"] for moment in one["moments"]]
        counts = {name: len(one[name]) for name in ("lost", "doubled", "different")}
        total.update(counts | {"kills": one["kills"]})
        rows.append(
            (kind.name, kind.item, one["kills"], one["runs"], alone)
            + (f"{min(seconds):.1f} to {max(seconds):.1f}", *counts.values())
        )
    rows.append(("all", "", total["kills"], *[""] * 3, *(total[name] for name in counts)))
    header = ("command", "item", "kills", "runs", "parent alone", "after, s")
    lines = [
        "# Kills",
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores; Python "
        f"{machine['python']}; seed {result['seed']}.",
        table((*header, "lost", "doubled", "different"), rows, "llrrrrrrr"),
        "Compared with an undisturbed run:",
        "\n".join(f"- **{kind.name}**: {kind.checked}." for kind in COMMANDS),
    ]
    return "\n\n".join(lines) + "\n"


def main() -> int:
    """Run the kills, and write the results as JSON and Markdown."""
    parser = argparse.ArgumentParser(description="Kill commands at random moments.")
    parser.add_argument("--scratch", type=Path, required=True, help="folder of all files")
    parser.add_argument("--kills", type=int, default=200, help="of all commands together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=[kind.name for kind in COMMANDS])
    parser.add_argument("--out", type=Path, help="JSON file of the results; a page beside it")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from face_report import describe_machine

    result = {}
    if arguments.out and arguments.out.is_file():
        result = json.loads(arguments.out.read_text(encoding="utf-8"))
    result |= {"machine": describe_machine() | {"cores": str(os.cpu_count())}}
    result |= {"seed": arguments.seed}
    scratch = Path(arguments.scratch)
    shutil.rmtree(scratch, ignore_errors=True)
    inputs = make_inputs(scratch)
    for number, kind in enumerate(COMMANDS):
        if arguments.only in (None, kind.name):
            rng = random.Random(f"{arguments.seed} {number}")
            count = arguments.kills // len(COMMANDS)

            def save(found: dict, name: str = kind.name) -> None:
                result[name] = found
                if arguments.out:
                    text = json.dumps(result, indent=1) + "\n"
                    arguments.out.write_text(text, encoding="utf-8")

            run_kills(kind(*inputs), scratch / f"{number}", count, rng, save)
    if all(kind.name in result for kind in COMMANDS):
        page = render(result)
        print(page)
        if arguments.out:
            arguments.out.with_suffix(".md").write_text(page, encoding="utf-8")
    faults = ("lost", "doubled", "different")
    return int(any(result[k.name][f] for k in COMMANDS for f in faults if k.name in result))


if __name__ == "__main__":
    sys.exit(main())
