"""The words of every command: its flags, their help and examples.

Flags come from the dataclasses in `options`, and each names the function in `commands` that it
runs. Parses nothing itself.
"""

import argparse
from pathlib import Path

from jdfd_keras import __version__, options
from jdfd_keras.cli import commands
from jdfd_keras.cli.flags import add_flags, key_and_folder

EXAMPLES = {
    "demo": "jdfd-keras demo\n  jdfd-keras demo --portraits photographs/ --out my-demo",
    "prepare": "jdfd-keras prepare folder videos/ --out prepared\n"
    "  jdfd-keras prepare faceforensics FaceForensics++/ --out ffpp --compression c23 "
    "--split strict\n"
    "  jdfd-keras prepare celebdf Celeb-DF-v2/ --out celebdf --workers 8\n"
    "  jdfd-keras prepare uadfv UADFV/ --out uadfv-fold0 --split kfold --fold 0\n"
    "  jdfd-keras prepare folder gs://bucket/videos --out gs://bucket/prepared "
    "--runner DataflowRunner --project mine --region europe-west4 --temp_location gs://bucket/tmp",
    "audit": "jdfd-keras audit prepared --out audit\n"
    "  jdfd-keras audit ffpp celebdf uadfv --format json",
    "inspect": "jdfd-keras inspect clip.mp4 --out sheet.png\n"
    "  jdfd-keras inspect clip.mp4 --out sheet.png --overlay annotated.mp4 --tracks all\n"
    "  jdfd-keras inspect prepared --out sheet.png",
    "train": "jdfd-keras train prepared --out run\n"
    "  jdfd-keras train --resume run\n"
    "  jdfd-keras train ffpp --out run --unlabelled celebdf --unlabelled uadfv "
    "--unlabelled-share 0.1\n"
    "  jdfd-keras train prepared --out run --strategy mirrored --batch-size 64\n"
    "  jdfd-keras train prepared --out run --encoder-weights none --optimizer adam "
    "--learning-rate 0.001 --classifier-learning-rate 0.001 --batch-size 16",
    "calibrate": "jdfd-keras calibrate run prepared\n"
    "  jdfd-keras calibrate run prepared --fpr 0.01",
    "evaluate": "jdfd-keras evaluate run prepared --out report\n"
    "  jdfd-keras evaluate run ffpp celebdf uadfv --out report --reconstruction\n"
    "  jdfd-keras evaluate --from-scores report/scores.parquet --aggregation max --out report-max\n"
    "  jdfd-keras evaluate --from-scores ours.csv --compare theirs.csv --out comparison",
    "experiment": "jdfd-keras experiment cross-dataset --data ff=ffpp celebdf=celebdf uadfv=uadfv "
    "--out experiments\n"
    "  jdfd-keras experiment ablation --data ff=ffpp celebdf=celebdf uadfv=uadfv "
    "--out experiments --seeds 0,1,2\n"
    "  jdfd-keras experiment foreign-data --data ff=ffpp celebdf=celebdf uadfv=uadfv "
    "--out experiments\n"
    "  jdfd-keras experiment statistics --data ff=ffpp celebdf=celebdf uadfv=uadfv "
    "--out experiments",
    "export": "jdfd-keras export run --name detector\n"
    "  jdfd-keras export run --name detector --report report\n"
    "  jdfd-keras export run --name detector --saved-models /models --version 7\n"
    "  jdfd-keras export run --name detector --tflite float16 int8 --data prepared",
    "serve": "jdfd-keras serve saved_models/detector\n"
    "  jdfd-keras serve saved_models/detector --engine embedded --host 0.0.0.0 --port 8080\n"
    "  jdfd-keras serve --models-config /models/models.config",
    "predict": "jdfd-keras predict clip.mp4 --model saved_models/detector\n"
    "  jdfd-keras predict clip.mp4 --model run --report clip.html --annotate clip-annotated.mp4\n"
    "  jdfd-keras predict *.mp4 --server http://127.0.0.1:8501/v1/models/detector --format json\n"
    "  jdfd-keras predict uploads/ --server grpc://127.0.0.1:8500/detector --out verdicts "
    "--workers 16",
}


def build_parser(run: dict | None = None) -> argparse.ArgumentParser:
    """Build the parser of all commands; flags come from the dataclasses in `options`.

    Args:
        run: Defaults for `train`, by the names of its arguments.
    """
    parser = argparse.ArgumentParser(
        prog="jdfd-keras",
        description="Detect deepfakes: train, evaluate, export and serve the Joint DeepFake "
        "Detector.",
        epilog="Start with `jdfd-keras demo`. `jdfd-keras COMMAND --help` tells more.",
    )
    parser.add_argument("--version", action="version", version=f"jdfd-keras {__version__}")
    parsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    command = _add_command(parsers, "demo", commands.demo, "see the whole line at work, in minutes")
    command.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="DIR", help="where all of it goes (demo)"
    )
    add_flags(command, options.DemoOptions)

    command = _add_command(parsers, "prepare", commands.prepare, "take the faces out of videos")
    command.add_argument(
        "layout",
        choices=options.LAYOUTS,
        metavar="LAYOUT",
        help=f"{', '.join(options.LAYOUTS)}; `folder` is your own, with real/ and fake/, or "
        "train/real/, train/fake/, val/real/ ...",
    )
    command.add_argument("root", metavar="ROOT", help="the folder of the data set")
    command.add_argument("--out", required=True, metavar="DIR", help="the prepared data set")
    add_flags(command, options.FaceOptions)
    add_flags(command, options.FilterOptions)
    add_flags(command, options.PrepareOptions, skip=("layout",))
    add_flags(command, options.SplitOptions)
    add_flags(command, options.WorkOptions)

    command = _add_command(
        parsers, "audit", commands.audit, "look for leaks and shortcuts in prepared data sets"
    )
    command.add_argument(
        "data", type=Path, nargs="+", metavar="DATA", help="what `prepare` made; one or several"
    )
    command.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="also write audit.md, audit.json and pictures of near-duplicates there",
    )

    command = _add_command(
        parsers, "inspect", commands.inspect, "show the faces of a video or data set"
    )
    command.add_argument(
        "path", type=Path, metavar="PATH", help="video, image, or what `prepare` made"
    )
    command.add_argument(
        "--out", type=Path, required=True, metavar="PNG", help="the contact sheet, a .png"
    )
    command.add_argument(
        "--overlay",
        type=Path,
        metavar="FILE",
        help="also draw the faces on the video (.mp4, .webm, .avi) or image (.png, .jpg); looks "
        "at every frame unless --every is given",
    )
    command.add_argument("--landmarks", action="store_true", help="draw the landmarks on the crops")
    add_flags(command, options.FaceOptions)
    add_flags(command, options.FilterOptions)

    command = _add_command(
        parsers, "train", commands.train, "train a detector on a prepared data set"
    )
    command.add_argument("data", type=Path, nargs="?", metavar="DATA", help="what `prepare` made")
    command.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="the run folder; one that was interrupted is gone on with",
    )
    command.add_argument(
        "--resume",
        type=Path,
        metavar="RUN",
        help="go on with a run, with its data and options; DATA only if that lies elsewhere now",
    )
    for group in commands.TRAIN_GROUPS.values():
        add_flags(command, group, skip=("image_size",))
    add_flags(command, options.RunOptions)
    command.set_defaults(**(run or {}))

    command = _add_command(
        parsers, "evaluate", commands.evaluate, "measure a detector on a data set"
    )
    command.add_argument(
        "model", type=Path, nargs="?", metavar="RUN", help="what `train` made, or a .keras"
    )
    command.add_argument(
        "data", type=Path, nargs="*", metavar="DATA", help="what `prepare` made; one or several"
    )
    command.add_argument(
        "--from-scores",
        type=Path,
        metavar="FILE",
        help="in the place of RUN: scores of any detector, .csv or .parquet with the columns "
        "video_id, label (1: fake) and score; DATA then tells which videos lack one, and refuses "
        "scores of others",
    )
    command.add_argument(
        "--compare",
        type=Path,
        metavar="FILE",
        help="scores of another detector, to test whether their AUC differs (DeLong)",
    )
    _add_out(command, "the report")
    add_flags(command, options.EvaluateOptions)

    command = _add_command(
        parsers,
        "calibrate",
        commands.calibrate,
        "set a run's temperature, threshold and band of uncertain scores, on validation videos",
    )
    command.add_argument("model", type=Path, metavar="RUN", help="what `train` made")
    command.add_argument(
        "data",
        type=Path,
        nargs="+",
        metavar="DATA",
        help="what `prepare` made, of which the validation split is taken; one or several",
    )
    add_flags(command, options.CalibrateOptions)

    command = _add_command(
        parsers, "experiment", commands.experiment, "make the paper's tables on your data sets"
    )
    command.add_argument(
        "name",
        choices=options.EXPERIMENTS,
        metavar="NAME",
        help="cross-dataset: Table 2, train on each, test on each; ablation: Table 3, with and "
        "without decoder; foreign-data: Fig. 4, unlabelled faces of the other sets; statistics: "
        "Table 1, nothing is trained",
    )
    command.add_argument(
        "--data",
        type=key_and_folder,
        nargs="+",
        action="extend",
        required=True,
        metavar="KEY=DIR",
        help="what `prepare` made; ff, celebdf and uadfv are the paper's, other keys are taken too",
    )
    _add_out(command, "tables, figure, runs and reports; what is there is gone on with")
    add_flags(command, options.ExperimentOptions)
    own = ("image_size", "decoder", "unlabelled", "unlabelled_share", "seed")  # the experiment's
    for group in commands.TRAIN_GROUPS.values():
        if group is not options.UnlabelledOptions:
            add_flags(command, group, skip=own)
    add_flags(command, options.RunOptions)
    add_flags(command, options.EvaluateOptions, skip=commands.SHARED_WITH_TRAIN)

    command = _add_command(parsers, "export", commands.export, "write a SavedModel for serving")
    command.add_argument("model", type=Path, metavar="RUN", help="what `train` made, or a .keras")
    command.add_argument("--name", required=True, help="the name it is served under")
    command.add_argument(
        "--saved-models",
        type=Path,
        default=Path("saved_models"),
        metavar="DIR",
        help="where models lie, as DIR/NAME/VERSION (saved_models)",
    )
    command.add_argument("--version", type=int, metavar="N", help="version (the next free one)")
    command.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="what `evaluate` wrote of this run; its figures go on the model card",
    )
    command.add_argument(
        "--tflite",
        nargs="+",
        default=[],
        choices=("float16", "int8"),
        help="also for TensorFlow Lite, with the AUC that it costs",
    )
    command.add_argument(
        "--data",
        type=Path,
        metavar="DATA",
        help="with --tflite: what `prepare` made, to measure on, and to fit int8 to",
    )

    command = _add_command(
        parsers, "serve", commands.serve, "answer REST and gRPC calls for exported models"
    )
    command.add_argument(
        "model", type=Path, nargs="?", metavar="MODEL", help="such as saved_models/detector"
    )
    command.add_argument(
        "--models-config",
        type=Path,
        metavar="FILE",
        help="in the place of MODEL: several models, version policies and labels, in TensorFlow "
        "Serving's text format",
    )
    add_flags(command, options.ServeOptions)

    command = _add_command(
        parsers,
        "predict",
        commands.predict,
        "give a verdict on videos and images",
        formats=("text", "json", "csv"),
    )
    command.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="video, image, or a folder of such"
    )
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--model", type=Path, metavar="PATH", help="run folder, .keras file or exported model"
    )
    source.add_argument(
        "--server",
        metavar="URL",
        help="such as http://127.0.0.1:8501/v1/models/detector or grpc://127.0.0.1:8500/detector",
    )
    command.add_argument(
        "--report",
        type=Path,
        metavar="HTML",
        help="also one page with time lines, the strongest frames and what spoke for fake in them",
    )
    command.add_argument(
        "--annotate",
        type=Path,
        metavar="FILE",
        help="also draw faces, scores and time line on the video (.mp4, .webm, .avi) or image "
        "(.png, .jpg); looks at every frame unless --every is given",
    )
    command.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="keep verdicts there as they come; what is there is not done again",
    )
    add_flags(command, options.PredictOptions)
    add_flags(command, options.PredictWorkOptions)
    return parser


def _add_command(
    parsers, name: str, run, summary: str, formats: tuple[str, ...] = ("text", "json")
) -> argparse.ArgumentParser:
    command = parsers.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"examples:\n  {EXAMPLES[name]}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # so that a flag of Beam is never taken for one of ours
    )
    command.set_defaults(run=run)
    command.add_argument(
        "--format", choices=formats, default="text", help="form of the result (text)"
    )
    return command


def _add_out(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help=what)
