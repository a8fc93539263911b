import pytest

from jdfd_keras.datasets.layouts.frame_sources import find_sources
from jdfd_keras.datasets.layouts.frames import (
    FEW_FRAMES,
    MAX_FRAMES,
    MediaEntry,
    describe_groups,
    group_frames,
    natural_key,
)
from jdfd_keras.datasets.videos import has_known_source


def entries_of(names, label=0, split=""):
    """Entries of images in a class folder, of which the first part of the path is the class."""
    return [
        MediaEntry(name, label, split, tuple(name.split("/")[1:-1]), is_image=True)
        for name in names
    ]


def videos_of(*names):
    """Name of each video to its images, in order; the others as videos of their own, without."""
    return {group.name: group.frames or group.path for group in group_frames(entries_of(names))}


@pytest.mark.parametrize(
    ("name", "video"),
    [
        ("FILM_frame_10_face_0", "FILM"),
        ("FILM-frame10", "FILM"),
        ("FILM.frame.10", "FILM"),
        ("FILM frame 10", "FILM"),
        ("FILMframe10", "FILM"),
        ("FILM_Frame_0010", "FILM"),
        ("FILM_frames_10", "FILM"),
        ("FILM_frm_10", "FILM"),
        ("FILM_keyframe_10", "FILM"),
        ("FILM_f010", "FILM"),
        ("F_frame_10", "F"),
        ("f_f10", "f"),
        ("FILM-F10", "FILM"),
        ("FILM_face_0_frame_12", "FILM"),
        ("FILM_frame_10_1", "FILM"),
        ("id0_0000_frame_0", "id0_0000"),
        ("000_003_frame_7", "000_003"),
        ("01_02__outside_talking_pan_laughing__V6LUF6YB_frame10", None),
        ("анна_frame_3", "анна"),
        ("video_12_frame_3", "video_12"),
    ],
)
def test_a_word_states_the_video_of_a_frame(name, video):
    (group,) = group_frames(entries_of([f"real/{name}.png"]))
    assert group.name == video or name.startswith(f"{group.name}_frame") and video is None
    assert group.frames == (f"real/{name}.png",)
    assert group.path == f"real/{group.name}"
    assert describe_groups([group]) == []


@pytest.mark.parametrize(
    ("form", "video"),
    [
        ("id0_id16_0001_{:05d}", "id0_id16_0001"),
        ("000_003_{}", "000_003"),
        ("000-003-{:03d}", "000-003"),
        ("anna{:04d}", "anna"),
        ("FILM ({})", "FILM"),
        ("FILM_{:04d}_crop", "FILM"),
        ("FILM_{:04d}_face0", "FILM"),
        ("FILM_img_{:04d}", "FILM"),
        ("aassnaulhq_{}0", "aassnaulhq"),
        ("a.b.c_{}", "a.b.c"),
    ],
)
def test_what_precedes_a_running_number_is_the_video(form, video):
    names = [f"real/{form.format(number)}.png" for number in (2, 10)]
    assert videos_of(*names, "real/other_01.png", "real/other_02.png") == {
        video: tuple(names),
        "other": ("real/other_01.png", "real/other_02.png"),
    }


@pytest.mark.parametrize(
    "names",
    [
        ["00001", "00002"],
        ["0A266M95TD", "1B266M95T1", "XFRM1AB3F2"],
        ["img_1", "img_2"],
        ["IMG 1", "Image-2"],
        ["real_1", "real_2", "fake_3"],
        ["real (1)", "real (2)"],
        ["face0001", "photo0002"],
        ["frame_1", "frame_2"],
        ["real_frame_1", "fake-face-frame-2"],
        ["ffhq_00001", "ffhq_00002"],
        ["seed0001", "seed0002"],
        ["2021-01-01", "2021-01-02"],
        ["easy_1_1110", "easy_2_0110", "mid_3_1111"],
        ["3f2504e0-4f89-11d3-9a0c-0305e82c3301", "1f2504e0-4f89-11d3-9a0c-0305e82c3302"],
        ["anna", "bob"],
        ["f01", "f02"],
    ],
)
def test_names_that_state_no_video_are_videos_of_their_own(names):
    paths = [f"real/{name}.jpg" for name in names]
    groups = group_frames(entries_of(paths))
    assert sorted(group.path for group in groups) == sorted(paths)
    assert {group.frames for group in groups} == {()}
    assert describe_groups(groups)[0].startswith(f"{len(names)} image names state no video")


@pytest.mark.parametrize(
    "form",
    ["{:04d}", "frame_{}", "img{:03d}", "{}_0", "face_{}", "anna_{:04d}", "Anna{}", "f{:02d}"],
)
def test_numbered_images_in_a_folder_are_frames_of_its_video(form):
    anna = [f"real/anna/{form.format(number)}.png" for number in range(8, 12)]
    assert videos_of(*anna, "real/bob/7.png", "real/carla/3.png") == {
        "anna": tuple(anna),
        "bob": ("real/bob/7.png",),
        "carla": ("real/carla/3.png",),
    }


def test_folders_of_generic_names_state_no_video():
    names = [f"fake/images/{number}.png" for number in range(3)]
    assert set(videos_of(*names).values()) == set(names)
    nested = [f"fake/Deepfakes/000_003/frames/{number}.png" for number in range(3)]
    assert videos_of(*nested) == {"000_003": tuple(nested)}


def test_a_folder_of_arbitrary_names_or_of_several_videos_is_no_video():
    names = ["fake/stylegan/xy.png", "fake/stylegan/ab.png", "fake/stylegan/1.png"]
    assert set(videos_of(*names).values()) == set(names)
    names = [f"fake/df/000_{other}_{number}.png" for other in ("003", "871") for number in (1, 20)]
    assert videos_of(*names) == {"000_003": tuple(names[:2]), "000_871": tuple(names[2:])}


def test_a_last_number_is_that_of_a_face_where_it_does_not_run():
    names = [f"real/{person}_{frame:05d}_0.png" for person in ("A", "B") for frame in (9, 120)]
    names += ["real/A_00120_1.png"]
    assert videos_of(*names) == {
        "A": ("real/A_00009_0.png", "real/A_00120_0.png", "real/A_00120_1.png"),
        "B": ("real/B_00009_0.png", "real/B_00120_0.png"),
    }
    # Ten frames of each video, from 0 to 9.
    names = [f"fake/00{a}_00{b}_{n}.png" for a, b in ((0, 3), (3, 0)) for n in range(10)]
    assert set(videos_of(*names)) == {"000_003", "003_000"}
    names = [f"real/id0_000{clip}_{n}.png" for clip in range(4) for n in range(10)]
    assert set(videos_of(*names)) == {f"id0_000{clip}" for clip in range(4)}
    # Two frames of each video, which is the only one with its first clip.
    names = [f"fake/00{a}_00{b}_{n}.png" for a, b in ((0, 3), (3, 0)) for n in range(2)]
    assert set(videos_of(*names)) == {"000_003", "003_000"}


def test_a_video_with_one_frame_in_a_folder_keeps_its_name():
    train = entries_of(
        [f"train/{person}_{n:03d}.png" for person in "AB" for n in (10, 20)], split="train"
    )
    test = entries_of([f"test/{person}_030.png" for person in "AC"], split="test")
    found = [(group.path, group.name) for group in group_frames(train + test)]
    # Nothing tells whether the only image of C is a frame.
    single = ("test/C_030.png", "C_030")
    assert found == [("test/A", "A"), single, ("train/A", "A"), ("train/B", "B")]


@pytest.mark.parametrize(
    "names",
    [
        ["{}-1200ms.png", "{}-2400ms.png", "{}-3600ms.png"],
        ["{}_0.5s.png", "{}_1.5s.png"],
        ["frame0_{}.png", "frame1_{}.png"],
        ["{}_0_left.png", "{}_1_left.png"],
        ["{}_0_c23.png", "{}_1_c23.png"],
        ["{}_x0_y1.png"],
        ["{}_000.png"],
    ],
)
@pytest.mark.parametrize("people", [["anna"], ["anna", "bob", "carla"]])
def test_a_pair_of_images_with_one_name_has_no_known_source(names, people):
    entries = [
        image_or_video(f"{kind}/{name.format(person)}", label)
        for label, kind in enumerate(["real", "fake"])
        for person in people
        for name in names
    ]
    groups = group_frames(entries)
    for group, sources in zip(groups, find_sources(groups), strict=True):
        if not group.frames:
            assert not has_known_source(sources), group.path


def test_the_videos_of_two_splits_and_of_two_sources_differ():
    entries = entries_of([f"all/FILM_frame_{number}.png" for number in range(4)])
    entries = [
        entry._replace(split=split, sources=sources)
        for entry, split, sources in zip(
            entries, ("train", "train", "test", "test"), ((), (), (), ("a",)), strict=True
        )
    ]
    assert [len(group.frames) for group in group_frames(entries)] == [2, 1, 1]


@pytest.mark.parametrize("folder", ["ffhq/", "a/"])
def test_a_guess_never_makes_one_video_of_a_whole_class(folder):
    names = [f"real/{folder}ffhq_{number:05d}.png" for number in range(FEW_FRAMES + 1)]
    assert set(videos_of(*names).values()) == set(names)


@pytest.mark.parametrize(("others", "most"), [(1, FEW_FRAMES), (2, MAX_FRAMES)])
@pytest.mark.parametrize("form", ["real/{}/{:05d}.png", "real/{}_{:05d}.png"])
def test_a_guess_joins_a_limited_number_of_images(others, most, form):
    rest = [form.format(f"other{other}", number) for other in range(others) for number in (1, 2)]
    names = [form.format("anna", number) for number in range(most)]
    assert len(videos_of(*rest, *names)["anna"]) == most
    names.append(form.format("anna", most))
    found = group_frames(entries_of(rest + names))
    assert {group.path for group in found if group.name not in ("other0", "other1")} == set(names)
    assert "anna" not in [group.name for group in found]


def test_a_word_joins_any_number_of_images():
    names = [f"real/FILM_frame_{number}.png" for number in range(MAX_FRAMES + 1)]
    assert videos_of(*names) == {"FILM": tuple(names)}


def test_a_folder_with_images_of_both_classes_is_no_video():
    entries = [entry for label in (0, 1) for entry in entries_of([f"x/a/{label}.png"], label)]
    assert [group.frames for group in group_frames(entries)] == [(), ()]


def test_guesses_are_described_with_counts_and_an_example():
    names = [f"real/{person}_{number}.png" for person in ("a", "b") for number in range(10, 13)]
    names += ["real/b_13.png", "real/c/1.png", "real/c/2.png", "real/d/1.png", "real/x.png"]
    number, folder, single = describe_groups(group_frames(entries_of(names)))
    assert "7 images in 2 videos, such as real/b (4 images)" in number
    assert "`prepare table`" in number
    assert "3 images in 2 videos, such as real/c (2 images)" in folder
    assert single.startswith("1 image name states no video, such as real/x.png")


def test_no_image_is_lost_or_in_two_videos():
    forms = [
        "{0}_frame_{1}",
        "{0}_{1:03d}",
        "{1}",
        "{0}{1}_0",
        "{0}/{1}",
        "{0}/{0}_{1}",
        "x/{0}-{1}",
    ]
    names = [
        f"real/{form.format(person, number)}.{suffix}"
        for form in forms
        for person in ("A", "b2", "id0_1")
        for number in (1, 2, 30)
        for suffix in ("png", "jpg")
    ]
    names = sorted(set(names))
    groups = group_frames(entries_of(names))
    assert sorted(name for g in groups for name in g.frames or (g.path,)) == names
    assert all(list(g.frames) == sorted(g.frames, key=natural_key) for g in groups)


def test_numbers_are_sorted_by_value():
    assert sorted(["f_10.png", "f_9.png", "f_009.jpg", "10"], key=natural_key) == [
        "10",
        "f_009.jpg",
        "f_9.png",
        "f_10.png",
    ]


def sources_of(*entries):
    groups = group_frames(entries)
    return {g.path: ids for g, ids in zip(groups, find_sources(groups), strict=True)}


def image_or_video(path, label, sources=()):
    is_image = path.endswith(".png")
    return MediaEntry(path, label, "", tuple(path.split("/")[:-1]), is_image, sources=sources)


def test_stated_sources_replace_those_of_the_name_and_connect_a_real_image():
    assert sources_of(
        image_or_video("a.png", 0),
        image_or_video("0001.png", 0),
        image_or_video("b.mp4", 0, ("c", "d")),
        image_or_video("x_b.mp4", 1, ("0001", "a")),
        image_or_video("y_b.mp4", 1),
        image_or_video("z.png", 1, ("z",)),
    ) == {
        "a.png": ("a",),
        "0001.png": ("0001",),
        "b.mp4": ("c", "d"),
        "x_b.mp4": ("0001", "a"),
        "y_b.mp4": ("b",),
        "z.png": ("z",),
    }


def test_a_real_image_is_connected_by_other_files_only():
    assert sources_of(image_or_video("t/anna.png", 0), image_or_video("u/anna.png", 0)) == {
        "t/anna.png": (),
        "u/anna.png": (),
    }
    found = sources_of(
        image_or_video("t/anna.png", 0),
        image_or_video("u/anna.png", 0),
        image_or_video("v/anna_7.png", 1),
    )
    assert set(found.values()) == {("?anna",)}


def test_the_folder_of_a_fake_image_names_its_sources_if_its_name_does_not():
    reals = [image_or_video("real/anna.mp4", 0), image_or_video("real/bob.mp4", 0)]
    found = sources_of(
        *reals, image_or_video("fake/anna_bob/x.png", 1), image_or_video("fake/anna_bob/bob.png", 1)
    )
    assert found["fake/anna_bob/x.png"] == ("anna", "bob")
    assert found["fake/anna_bob/bob.png"] == ("bob",)


def test_numbered_folders_of_numbers_that_run_on_are_no_videos():
    names = [f"real/{number // 20:05d}/{number:05d}.png" for number in range(60)]
    entries = [image_or_video(name, 0) for name in names]
    groups = group_frames(entries)
    assert [group.frames for group in groups] == [()] * 60
    assert find_sources(groups) == [()] * 60
