"""Write the golden scores of the shipped detector: `python tests/pictures/update.py`.

Takes the pictures beside this file and saved_models/jdfd-faces/1; writes scores.json.
"""

import json
from pathlib import Path

from jdfd_keras import EngineOptions, predict_files

HERE = Path(__file__).resolve().parent
MODEL = HERE.parents[1] / "saved_models" / "jdfd-faces" / "1"


def judge_pictures(backend: str) -> dict:
    """Return the digest of the detector and its score of the only face of each picture."""
    engine = EngineOptions(backend=backend, precision="float32")
    predictions = predict_files(sorted(HERE.glob("*.png")), model=MODEL, engine=engine)
    scores = {}
    for verdict in predictions.files:
        (face,) = verdict.faces
        scores[Path(verdict.path).name] = face.score
    return {"digest": predictions.provenance.digest, "scores": scores}


if __name__ == "__main__":
    golden = judge_pictures("tensorflow")
    (HERE / "scores.json").write_text(json.dumps(golden, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(golden, indent=2))
