"""The settings of how faces are found and chosen."""

from dataclasses import dataclass

from jdfd_keras.options.setting import setting


@dataclass(frozen=True)
class FaceOptions:
    """How faces are taken from a video; kept beside every data set and exported model."""

    detector: str = setting("dlib", "face detector", choices=("dlib", "mtcnn"))
    frames_per_video: int = setting(
        32, "frames looked at per video, spread evenly (the paper takes 300)"
    )
    every: int = setting(
        0, "look at every Nth frame instead; 1 takes all of them, 0 frames_per_video of them"
    )
    tracks: str = setting(
        "largest",
        "people taken: the one who fills most of the video, or all",
        choices=("largest", "all"),
    )
    alignment: str = setting(
        "landmarks68",
        "how crops are laid: upright by the 68 landmarks, as DeepfakeBench does, or the plain box",
        choices=("landmarks68", "deepfakebench", "box"),
    )
    face_size: int = setting(299, "width and height of a face crop in pixels (the paper's 299)")
    margin: float = setting(1.3, "width of the crop over the width of the tight face")


@dataclass(frozen=True)
class FilterOptions:
    """Which faces are left out for their quality; none by default."""

    min_score: float = setting(0.0, "least score of the detector, on its own scale; 0: any")
    min_sharpness: float = setting(0.0, "least sharpness, as the manifest gives it; 0: any")
    min_size: int = setting(0, "least width of the detected face in pixels of the frame; 0: any")
    max_outside: float = setting(1.0, "largest share of a crop outside the frame; 1: any")
    max_yaw: float = setting(90.0, "largest turn of the head in degrees; 90: any")
