"""Reading tables of renders."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lipwire.domain import InvalidInput, NotFound
from lipwire.rendermany import RenderJob, RenderSettings, read_jobs

Write = Callable[..., Path]
SETTINGS = RenderSettings()


def test_each_line_is_a_video(folder: Path, write_table: Write) -> None:
    table = write_table(
        "anna,a.wav,out/1.mp4,",
        f'./mine/bert, "b.wav",{folder}/out/2.MOV, 17',
        "",
        ",,,",
        names="Avatar, audio ,out,start_frame",
    )
    assert read_jobs(table) == [
        RenderJob(2, "anna", folder / "a.wav", folder / "out" / "1.mp4"),
        RenderJob(3, str(folder / "mine" / "bert"), folder / "b.wav", folder / "out" / "2.MOV", 17),
    ]


def test_a_table_of_a_spreadsheet_begins_with_a_mark(folder: Path, write_table: Write) -> None:
    table = write_table("anna,a.wav,out/1.mp4")
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n"))
    assert [job.avatar for job in read_jobs(table)] == ["anna"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("anna,a.wav", "2 fields, the first line has 3"),
        (",a.wav,out/1.mp4", "avatar is empty"),
        ("anna,c.wav,out/1.mp4", "there is no recording .*c.wav"),
        ("anna,out,out/1.mp4", "there is no recording .*out"),
        ("anna,a.wav,out/1.avi", r"1\.avi ends in \.avi; allowed are \.mp4, \.m4v, \.mov"),
        ("anna,a.wav,out/1", "ends in nothing"),
        ("anna,a.wav,none/1.mp4", "there is no folder .*none to write 1.mp4 to"),
        ("anna,a.wav,out.mp4/1.mp4", "there is no folder"),
        ('anna,a.wav,"out/1.mp4', "no CSV"),
        ("bert,b.wav,out/0.mp4", "0.mp4 is what line 2 writes"),
        ("bert,b.wav,out/../out/0.mp4", "0.mp4 is what line 2 writes"),
    ],
)
def test_a_line_that_is_no_job_is_named(line: str, told: str, write_table: Write) -> None:
    with pytest.raises(InvalidInput, match=f"no table of renders: line 3: .*{told}"):
        read_jobs(write_table("anna,a.wav,out/0.mp4", line))


@pytest.mark.parametrize("start", ["-1", "1.5", "x", "1000000001", "²"])
def test_frames_to_begin_with_are_whole_numbers(start: str, write_table: Write) -> None:
    table = write_table(f"anna,a.wav,out/1.mp4,{start}", names="avatar,audio,out,start_frame")
    with pytest.raises(InvalidInput, match=r"line 2: start_frame is .*; allowed are whole numbers"):
        read_jobs(table)


def test_a_video_is_not_written_over_a_recording(folder: Path, write_table: Write) -> None:
    os.link(folder / "a.wav", folder / "a.mp4")
    with pytest.raises(InvalidInput, match=r"a\.mp4 is the recording of line 2"):
        read_jobs(write_table("anna,a.mp4,out/1.mp4", "anna,b.wav,a.mp4"))


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("avatar,audio", "out is missing"),
        ("anna,a.wav,out/1.mp4", "avatar is missing"),
        ("avatar,audio,out,color", "'color' is none"),
        ("avatar,audio,out,out", "out is there twice"),
        ("", "avatar is missing"),
    ],
)
def test_the_first_line_names_the_columns(names: str, told: str, write_table: Write) -> None:
    with pytest.raises(InvalidInput, match=f"the first line of .* columns .*: {told}"):
        read_jobs(write_table("anna,a.wav,out/1.mp4", names=names))


def test_ten_problems_are_told_at_a_time(write_table: Write) -> None:
    with pytest.raises(InvalidInput, match=r"line 11: .*; and 5 more$"):
        read_jobs(write_table(*["anna"] * 15))


def test_a_file_that_is_no_table(folder: Path, write_table: Write) -> None:
    with pytest.raises(NotFound, match=r"there is no file .*none\.csv"):
        read_jobs(folder / "none.csv")
    with pytest.raises(InvalidInput, match="it is not text in UTF-8"):
        read_jobs(folder / "a.wav")
    with pytest.raises(InvalidInput, match="has no line but that of the names"):
        read_jobs(write_table())


def test_a_key_stands_for_what_a_video_is_made_of(folder: Path) -> None:
    job = RenderJob(2, "anna", folder / "a.wav", folder / "1.mp4")
    others = [
        RenderJob(2, "bert", folder / "a.wav", folder / "1.mp4").key(SETTINGS),
        RenderJob(2, "anna", folder / "b.wav", folder / "1.mp4").key(SETTINGS),
        RenderJob(2, "anna", folder / "a.wav", folder / "1.mp4", 3).key(SETTINGS),
        job.key(RenderSettings(crf=20)),
    ]
    key = job.key(SETTINGS)
    assert key not in others
    assert RenderJob(7, "anna", folder / "a.wav", folder / "2.mp4").key(SETTINGS) == key
    os.utime(folder / "a.wav", (1, 1))
    assert job.key(SETTINGS) != key
    (folder / "a.wav").unlink()
    with pytest.raises(NotFound, match=r"a\.wav"):
        job.key(SETTINGS)
