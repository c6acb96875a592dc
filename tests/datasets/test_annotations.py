"""Annotation files of each format, as tiny files of the true form, and damaged ones."""

from __future__ import annotations

import json

import pytest

from mdmmt import InputError
from mdmmt.datasets import Caption, read_captions
from mdmmt.datasets.annotations import FORMATS


def write(tmp_path, name, content):
    path = tmp_path / name
    if not isinstance(content, str | bytes):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def whole(video, text):
    return Caption(video, 0.0, None, text)


MSRVTT = {
    "info": {"year": "2016"},
    "videos": [
        {"video_id": "video1", "split": "train", "start time": 3.5, "end time": 9.0, "id": 1},
        {"video_id": "video7", "split": "test", "start time": 120.0, "end time": 131.2, "id": 7},
    ],
    "sentences": [
        {"caption": "a boy paints a wall", "video_id": "video1", "sen_id": 0},
        {"caption": "two birds sit on a roof", "video_id": "video7", "sen_id": 1},
        {"caption": "birds are resting", "video_id": "video7", "sen_id": 2},
    ],
}
ACTIVITYNET = {
    "v_abc-1": {
        "duration": 61.5,
        "timestamps": [[0, 12.25], [10.5, 61.5]],
        "sentences": ["A woman lifts a box.", " She puts it down."],
    }
}
AUTHORS = {
    "clip.1": {"text": ["a cat", "it sleeps"], "start": [0, 1.5], "end": [-1, 4.0]},
    "clip2": {"text": ["rain"], "start": [0, 0], "end": [3, 3]},  # a time too many
}
MSRVTT_1KA = (
    "key,vid_key,video_id,sentence\n"
    "ret0,msr7,video7,two birds sit on a roof\n"
    'ret1,msr9,video9,"one, two and a ""third"" man"\n'
)
FILM_TIMES = "00.01.02.003\t00.01.05.000\t00.01.02.003\t00.01.05.000"
LSMDC = (
    f'0001_Film_00.01.02.003-00.01.05.000\t{FILM_TIMES}\tHe says "no.\n'
    f"0001_Film_00.02.00.000-00.02.01.500\t{FILM_TIMES}\tSOMEONE nods.\n"
)
MSVD = (
    "VideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description\n"
    "a-_B1,33,46,5,clean,55,English,a dog swims\n"
    "a-_B1,33,46,6,clean,30,German,ein Hund schwimmt\n"
    "a-_B1,33,46,7,unverified,30,English,\n"
)
MSVD_TEXT = "# what it shows\n\na-_B1_33_46 a dog swims\nx_1_2 the man's car, red\n"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "videodatainfo.json",
            MSRVTT,
            [whole("video7", "two birds sit on a roof"), whole("video7", "birds are resting")],
        ),
        (
            "val_1.json",
            ACTIVITYNET,
            [
                Caption("v_abc-1", 0, 12.25, "A woman lifts a box."),
                Caption("v_abc-1", 10.5, 61.5, "She puts it down."),
            ],
        ),
        (
            "mdata.json",
            AUTHORS,
            [
                whole("clip.1", "a cat"),
                Caption("clip.1", 1.5, 4.0, "it sleeps"),
                Caption("clip2", 0, 3.0, "rain"),
            ],
        ),
        (
            "1ka.csv",
            MSRVTT_1KA,
            [
                whole("video7", "two birds sit on a roof"),
                whole("video9", 'one, two and a "third" man'),
            ],
        ),
        (
            "LSMDC16_challenge.csv",
            LSMDC,
            [
                whole("0001_Film_00.01.02.003-00.01.05.000", 'He says "no.'),
                whole("0001_Film_00.02.00.000-00.02.01.500", "SOMEONE nods."),
            ],
        ),
        ("msvd.csv", MSVD, [whole("a-_B1_33_46", "a dog swims")]),
        (
            "AllVideoDescriptions.txt",
            MSVD_TEXT,
            [whole("a-_B1_33_46", "a dog swims"), whole("x_1_2", "the man's car, red")],
        ),
        (
            "own.csv",
            "\ufeffvideo,start_s,end_s,caption\r\nd/a.mp4,1,2.5,a dog\r\nb,,,\"über\r\nall\"\r\n",
            [Caption("d/a.mp4", 1.0, 2.5, "a dog"), whole("b", "über\nall")],
        ),
        ("short.csv", "caption,video\na dog,x\n", [whole("x", "a dog")]),
        (
            "own.jsonl",
            '{"video":\t"x", "start_s": 1, "end_s": 2, "caption": "a\\u2028dog"}\n\n'
            '{"video": "y", "caption": "b\u2028c", "end_s": null}\n',
            [Caption("x", 1.0, 2.0, "a\u2028dog"), whole("y", "b\u2028c")],
        ),
    ],
)  # fmt: skip
def test_read_captions_reads_every_format(tmp_path, name, content, expected):
    assert read_captions(write(tmp_path, name, content)) == expected


def test_read_captions_takes_a_split_of_msrvtt_alone(tmp_path):
    path = write(tmp_path, "a.json", MSRVTT)
    assert read_captions(path, split="train") == [whole("video1", "a boy paints a wall")]
    assert read_captions(path, default_split="train") == read_captions(path, split="train")
    assert read_captions(path, "test", default_split="train") == read_captions(path)
    with pytest.raises(
        InputError, match="no video of the split 'val', its splits are: test, train"
    ):
        read_captions(path, split="val")
    jsonl = '{"video": "x", "caption": "a"}'
    for name, content in (
        ("b.json", AUTHORS), ("c.json", ACTIVITYNET), ("d.csv", MSVD), ("e.jsonl", jsonl),
    ):  # fmt: skip
        with pytest.raises(InputError, match="has no splits; expected no split instead of 'test'"):
            read_captions(write(tmp_path, name, content), split="test")
        assert read_captions(write(tmp_path, name, content), default_split="train")
    with pytest.raises(InputError, match="in no known format"):
        read_captions(write(tmp_path, "f.json", changed(MSRVTT, "sentences", drop=True)), "val")


def test_read_captions_notes_file_and_place(tmp_path):
    csv = read_captions(write(tmp_path, "own.csv", 'video,caption\n\nx,"a\nb"\ny,c\n'))
    assert [caption.where for caption in csv] == [
        f"{tmp_path}/own.csv, line {line}" for line in (4, 5)
    ]
    json = read_captions(str(write(tmp_path, "a.json", MSRVTT)))
    assert json[1].where == f"{tmp_path}/a.json, sentence 3"


def changed(content, *path, to=None, drop=False):
    copy = json.loads(json.dumps(content))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    if drop:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return copy


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "video,text\nx,a\n",
            "line 1: 'video,text': is in no known format",
        ),
        ("a.csv", "video,caption,begin\nx,a,1\n", "line 1: .*in no known format"),
        ("a.csv", "", "line 1: ''"),
        ("a.csv", "video,caption\n", "a.csv has no caption"),
        ("a.csv", "video,caption\nx,a\nx,a,b\n", "line 3: 3 columns, expected 2: video,caption"),
        ("a.csv", "video,caption\nx\n", "line 2: 1 column, expected"),
        ("a.csv", 'video,caption\nx,"a\n', "line 2: unexpected end of data"),
        ("a.csv", "video,caption\n,a\n", "line 2: video is '', expected a text"),
        ("a.csv", "video,caption\nx, \n", "line 2: caption is ' ', expected a text"),
        ("a.csv", "video,start_s,caption\nx,one,a\n", "line 2: start_s is 'one', expected seconds"),
        ("a.csv", "video,start_s,caption\nx,nan,a\n", "line 2: start_s is 'nan'"),
        ("a.csv", "video,start_s,end_s,caption\nx,3,2,a\n", "line 2: from second 3 to 2, expected"),
        ("a.csv", "video,start_s,caption\nx,-3,a\n", "line 2: from second -3 to the end"),
        ("a.csv", b"video,caption\nx,a\nx,\xff\n", "line 3: is not UTF-8"),
        ("a.csv", MSRVTT_1KA.replace("video7", ""), "line 2: video_id is ''"),
        ("a.csv", MSVD.replace("33,46,5", ",46,5"), "line 2: Start is ''"),
        ("a.csv", LSMDC.replace("\tSOMEONE nods.", ""), "line 2: 5 columns, expected the 6 of LSM"),
        ("a.csv", LSMDC.replace("SOMEONE nods.", " "), "line 2: sentence is ' '"),
        ("a.txt", MSVD_TEXT + "and a line\n", "line 5: 'and a line', expected <VideoID>_<Start>_"),
        ("a.txt", MSVD_TEXT + "x_3_4\n", "line 5: sentence is ''"),
        ("a.jsonl", '{"video": "x"}\n', "line 1: has no caption, but video"),
        ("a.jsonl", "\n[1]\n", "line 2: is a list, expected an object"),
        ("a.jsonl", '{"video": "x", "caption": "a", "end": 3}\n', "line 1: has end, known are"),
        ("a.jsonl", '{"video": "x", "caption": 3}\n', "line 1: caption is 3, expected a text"),
        ("a.jsonl", '{"video": "x", "caption": "a", "end_s": true}\n', "line 1: end_s is True"),
        ("a.jsonl", '{"video"\n', r"line 1: is not JSON"),
        ("a.json", '{"a":\n1,\n]', r"a.json, line 3: is not JSON"),
        ("a.json", "[" * 100_000, "a.json: is nested too deeply"),
        ("a.json", [1], "in no known format"),
        ("a.json", {"a": {"b": 1}}, "in no known format"),
        ("a.json", changed(MSRVTT, "videos", to=3), "videos is a int, expected a list"),
        ("a.json", changed(MSRVTT, "videos", 1, "split", drop=True), "video 2: has no split, but"),
        ("a.json", changed(MSRVTT, "videos", 0, to="x"), "video 1: is a str, expected an object"),
        (
            "a.json",
            changed(MSRVTT, "sentences", 2, "video_id", to="video8"),
            "sentence 3: the video 'video8' is not among the videos",
        ),
        (
            "a.json",
            changed(MSRVTT, "sentences", 1, "video_id", to=["video7"]),
            r"sentence 2: video_id is \['video7'\], expected a text",
        ),
        ("a.json", changed(MSRVTT, "sentences", 1, "caption", drop=True), "sentence 2: has no cap"),
        (
            "a.json",
            changed(ACTIVITYNET, "v_abc-1", "sentences", to=["a"]),
            "video 'v_abc-1': 2 timestamps and 1 sentence, expected",
        ),
        (
            "a.json",
            changed(ACTIVITYNET, "v_abc-1", "timestamps", 1, to=[1]),
            r"'v_abc-1', caption 2: the timestamp \[1\], expected",
        ),
        (
            "a.json",
            changed(ACTIVITYNET, "v_abc-1", "timestamps", 1, 0, to="x"),
            "'v_abc-1', caption 2: start is 'x', expected seconds",
        ),
        (
            "a.json",
            changed(AUTHORS, "clip2", "end", drop=True),
            "video 'clip2': has no end, but te",
        ),
        (
            "a.json",
            changed(AUTHORS, "clip.1", "start", to=[0]),
            "video 'clip.1': 2, 1, 2 values of text, start and end, expected times",
        ),
        (
            "a.json",
            changed(AUTHORS, "clip.1", "text", 1, to=""),
            "'clip.1', caption 2: text is '', expected",
        ),
    ],
)
def test_read_captions_names_file_and_place_of_an_error(tmp_path, name, content, message):
    with pytest.raises(InputError, match=message) as error:
        read_captions(write(tmp_path, name, content))
    assert f"{tmp_path}/{name}" in str(error.value)


def test_read_captions_names_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"no\.csv' cannot be read: No such file"):
        read_captions(tmp_path / "no.csv")


@pytest.mark.parametrize("name", ["a.json", "a.csv"])
def test_read_captions_lists_all_formats_to_a_file_in_none(tmp_path, name):
    with pytest.raises(InputError, match="in no known format") as error:
        read_captions(write(tmp_path, name, "null"))
    assert all(f"{one.name} ({one.layout})" in str(error.value) for one in FORMATS)
