"""Command `import-weights`: convert published weights into those of a network here."""

import argparse
import os
import shlex
from pathlib import Path

from jdfd_keras.cli.parser import Command, CommandParser, Output, check_inputs
from jdfd_keras.io.console import import_tensorflow

SOURCES = (
    *("deepfakebench-xception", "timm-legacy_xception", "faceforensics"),
    *("mesonet-meso4", "mesonet-mesoinception4"),
)
_COUNTER = ".num_batches_tracked"  # one for each batch normalisation of PyTorch


def _add_arguments(parser: CommandParser) -> None:
    parser.add_path("file", "FILE", "published weights: .pth, .p, .safetensors, or .h5 of MesoNet")
    parser.add_argument(
        "--from", dest="source", required=True, choices=SOURCES, help="origin of the weights"
    )
    parser.add_path(
        "--out",
        "OUT",
        "Xception: weights file to write, NAME.weights.h5; MesoNet: run folder to write",
        required=True,
    )


def _run(arguments: argparse.Namespace) -> Output:
    """Convert published weights of Xception or MesoNet for use here.

    jdfd-keras import-weights xception_best.pth --from deepfakebench-xception --out db.weights.h5
    jdfd-keras import-weights full_c23.p --from faceforensics --out ffpp.weights.h5
    jdfd-keras import-weights Meso4_DF.h5 --from mesonet-meso4 --out meso4
    """
    check_inputs(arguments.file)
    _check_place(arguments.out)
    import_tensorflow()
    from jdfd_keras.model.weight_import import (
        MESONET_SOURCES,
        describe_import,
        import_encoder,
        import_mesonet,
    )
    from jdfd_keras.training.run_folder import write_imported_run

    file, source, out = arguments.file, arguments.source, arguments.out
    shown = shlex.quote(str(out))
    if source in MESONET_SOURCES:
        facts = describe_import(file, source)
        write_imported_run(out, import_mesonet(file, facts.network), facts)
        text = (
            f"imported: {out}\nThe published network gives P(real); its last layer is negated, so "
            "that the scores are P(fake). Its training data is unknown here.\n"
            f"evaluate it: jdfd-keras evaluate {shown} DATA (prepared with --face-size 256)"
        )
        return Output({"path": str(out), "facts": facts.to_dict(), "unused": []}, text)
    imported = import_encoder(file, source, out)
    counters = [name for name in imported.unused if name.endswith(_COUNTER)]
    unused = [name for name in imported.unused if name not in counters]
    unused += [f"*{_COUNTER} ({len(counters)})"] if counters else []
    text = (
        f"imported: {out}\nnot used: {', '.join(unused) or 'none'}\n"
        f"train with it: jdfd-keras train DATA --out RUN --network {imported.facts.network} "
        f"--encoder-weights {shown}"
    )
    return Output(imported.to_dict(), text)


def _check_place(out: Path) -> None:
    """Check that a file or folder can be made, before the work."""
    place = next(parent for parent in out.absolute().parents if parent.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        got = "in which you may not write" if place.is_dir() else "which is not a folder"
        raise OSError(
            f"Expected to write {out} in a folder; got {place}, {got}. Try another --out."
        )


COMMAND = Command(_add_arguments, _run)
