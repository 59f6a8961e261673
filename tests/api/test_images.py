"""The files that are accepted as pictures, and the refusals of all others."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers import pictures
from tests.helpers.api import Api
from tests.helpers.pictures import chunk, encode, noise, png_header, zeros
from tests.helpers.serving import ROOT, serving

WHOLE = {
    "jpeg": pictures.jpeg(),
    "jpeg of several megabytes": pictures.jpeg(3),
    "phone's jpeg": pictures.phone_jpeg(),
    "progressive jpeg": encode(noise(300, 200), "JPEG", progressive=True),
    "jpeg of 65 million pixels": encode(Image.new("L", (13000, 5000)), "JPEG", quality=20),
    "progressive jpeg of 64 megapixels": pictures.progressive_jpeg(9248, 6944),
    "cmyk jpeg": encode(noise(300, 200, "L").convert("CMYK"), "JPEG"),
    "grey jpeg": encode(noise(300, 200, "L"), "JPEG"),
    "jpeg with full colours": encode(noise(300, 200), "JPEG", subsampling=0),
    "jpeg of one pixel": encode(noise(1, 1), "JPEG"),
    "jpeg narrower than a block": encode(noise(3, 2000), "JPEG"),
    "jpeg with a comment and bytes behind": encode(noise(99, 99), "JPEG", comment=b"\xff\xd9 hello") + b"motion video",
    "jpeg with bytes between its segments": pictures.jpeg()[:2] + b"\xff" * 9 + pictures.jpeg()[2:20] + b"\0" * 9
    + pictures.jpeg()[20:],
    "jpeg of 26 scans at 64 megapixels": pictures.jpeg_of_many_scans(16, 9248, 6944),
    "extended sequential jpeg": pictures.jpeg().replace(b"\xff\xc0", b"\xff\xc1", 1),
    "jpeg with restart markers": encode(noise(300, 200), "JPEG", restart_marker_blocks=2),
    "jpeg with exif": encode(noise(300, 200), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"),
    "png": pictures.png(),
    "png with transparency": encode(noise(300, 200, "L").convert("RGBA"), "PNG"),
    "png with a palette": encode(noise(300, 200).quantize(16), "PNG"),
    "png of one bit": encode(noise(300, 200, "1"), "PNG"),
    "png of 16 bits": encode(Image.new("I;16", (30, 20), 4000), "PNG"),
    "animated png": encode(noise(300, 200), "PNG", save_all=True, append_images=[noise(300, 200, "L").convert("RGB")]),
    "interlaced png": png_header(1, 1, interlace=1) + chunk(b"IDAT", zlib.compress(b"\0\1\2\3")) + chunk(b"IEND", b""),
    "jpeg without its last byte": pictures.jpeg()[:-1],
    "jpeg without its end marker": pictures.jpeg()[:-2],
    "jpeg with full colours without its end marker": encode(noise(300, 200), "JPEG", subsampling=0)[:-2],
    "grey jpeg without its end marker": encode(noise(300, 200, "L"), "JPEG")[:-2],
    "progressive jpeg without its end marker": encode(noise(300, 200), "JPEG", progressive=True)[:-2],
    "jpeg with an end marker in its comment alone": encode(noise(99, 99), "JPEG", comment=b"\xff\xd9 hello")[:-2],
    "png without its last byte": pictures.png()[:-1],
    "png without its end": pictures.png()[:-12],
}  # fmt: skip


@pytest.mark.parametrize("picture", WHOLE.values(), ids=WHOLE.keys())
def test_a_whole_picture_comes_back_as_it_came(shared: Api, picture: bytes) -> None:
    answer = shared.upload(picture, "anything.txt")
    assert answer.status_code == 200, answer.text
    back = shared.retrieve(answer.json()["imageId"])
    assert back.content == picture
    is_png = picture.startswith(b"\x89PNG")
    assert back.headers["Content-Type"] == ("image/png" if is_png else "image/jpeg")
    assert back.headers["Content-Disposition"] == f'inline; filename="picture.{"png" if is_png else "jpg"}"'


# Pictures modelled on public bug reports. They are accepted if Chromium's <img> shows all of them.
CASES = {
    "baseline-no-eoi.jpg": 200,
    "exif-xresolution-empty-ascii.jpg": 200,
    "jfif-short.jpg": 200,
    "junk-5000-zeros.jpg": 200,
    "marker-ff01.jpg": 200,
    "photoshop-cut.jpg": 200,
    "pixel-00e1-9k.jpg": 200,
    "png-adler-wrong.png": 200,
    "png-apng-bad-frame.png": 200,
    "png-bad-crc-text.png": 200,
    "png-dup-ihdr.png": 422,
    "png-filter-bad.png": 422,
    "png-idat-cut.png": 422,
    "png-idat-too-much.png": 200,
    "png-iend-cut.png": 200,
    "png-no-iend.png": 200,
    "png-rows-missing.png": 422,
    "png-split-idat.png": 422,
    "png-unknown-critical.png": 422,
    "sampling-3-2.jpg": 422,
    "samsung-panorama-no-eoi-sef.jpg": 200,
}


@pytest.mark.parametrize(("name", "status"), CASES.items(), ids=CASES.keys())
def test_a_picture_is_accepted_if_a_browser_shows_all_of_it(shared: Api, name: str, status: int) -> None:
    assert shared.upload((ROOT / "tests" / "hostile" / "corpus" / "pictures" / name).read_bytes()).status_code == status


NO_PICTURES = {
    "avif": encode(noise(30, 20), "AVIF"),
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100,
    "webp": encode(noise(30, 20), "WEBP"),
    "gif": encode(noise(30, 20), "GIF"),
    "bmp": encode(noise(30, 20), "BMP"),
    "tiff": encode(noise(30, 20), "TIFF"),
    "pdf": b"%PDF-1.7\n",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "html": b"<!doctype html><script>alert(1)</script>",
    "video": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
    "text": b"Dear customer, our photograph is in the other file.",
    "nothing": bytes(1000),
    "unknown": b"\xff",
}


@pytest.mark.parametrize(("kind", "content"), NO_PICTURES.items(), ids=NO_PICTURES.keys())
def test_a_file_that_is_no_png_or_jpeg_is_refused_by_name(shared: Api, kind: str, content: bytes) -> None:
    answer = shared.upload(content, "photo.jpg")
    assert answer.status_code == 415
    assert answer.json().keys() == {"error", "code", "found"}
    assert (answer.json()["code"], answer.json()["found"]) == ("not_a_picture", kind)


def test_a_refusal_says_what_to_choose_instead(shared: Api) -> None:
    sentence = shared.upload(NO_PICTURES["heic"]).json()["error"]
    assert sentence == "This is a HEIC photo. Please choose a PNG or JPEG, such as a screenshot."


DAMAGED = {
    "half a jpeg": pictures.jpeg()[: len(pictures.jpeg()) // 2],
    "half a progressive jpeg": WHOLE["progressive jpeg"][:-3000],
    "jpeg without its last blocks": pictures.jpeg()[:-20],
    "jpeg without its last blocks, with an end marker": pictures.jpeg()[:-20] + b"\xff\xd9",
    "a jpeg's header": pictures.jpeg()[:300],
    "a jpeg's first bytes": b"\xff\xd8\xff\xe0",
    "jpeg magic and nonsense": b"\xff\xd8\xff" + bytes(range(256)) * 10,
    "arithmetic-coded jpeg": pictures.jpeg().replace(b"\xff\xc0", b"\xff\xc9"),
    "lossless jpeg": pictures.jpeg().replace(b"\xff\xc0", b"\xff\xc3"),
    "jpeg without a frame": pictures.jpeg().replace(b"\xff\xc0", b"\xff\xfe"),
    "jpeg of no height": pictures.jpeg_of_size(100, 0),
    "png without a header": pictures.png().replace(b"IHDR", b"IHDX", 1),
    "png of no width": pictures.png_of_size(0, 1),
    "half a png": pictures.png()[: len(pictures.png()) // 2],
    "png of rows that are missing": pictures.png_of_size(100, 100),
    "png with one wrong byte": pictures.png()[:5000] + bytes([pictures.png()[5000] ^ 1]) + pictures.png()[5001:],
    "png without image data": png_header(10, 10) + chunk(b"IEND", b""),
    "png of no kind": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"\0\0\0\1\0\0\0\1\x07\x07\0\0\0") + chunk(b"IEND", b""),
    "png with a palette that is missing": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"\0\0\0\1\0\0\0\1\x08\x03\0\0\0")
    + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b""),
    "a png's first bytes": b"\x89PNG\r\n\x1a\n",
}  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_picture_is_refused(shared: Api, content: bytes) -> None:
    answer = shared.upload(content)
    assert (answer.status_code, answer.json()["code"]) == (422, "image_damaged")


@pytest.mark.parametrize("make", [pictures.png_of_size, pictures.jpeg_of_size], ids=["png", "jpeg"])
def test_more_than_65_million_pixels_are_refused_with_both_numbers(
    shared: Api, make: Callable[[int, int], bytes]
) -> None:
    answer = shared.upload(make(13001, 5000))
    assert (answer.status_code, answer.json()["code"]) == (422, "too_many_pixels")
    assert answer.json()["error"] == "The picture has 13001 x 5000 = 65,005,000 pixels; the limit is 65,000,000."
    assert shared.upload(make(60000, 60000)).json()["code"] == "too_many_pixels"


@pytest.mark.parametrize(
    "picture",
    [
        pictures.progressive_jpeg(13000, 5000, subsampling=0),
        pictures.jpeg_of_many_scans(17, 9248, 6944),
        b"\xff\xd8" + b"\xff\xe1\0\x08Exif\0\0" * 400_000 + pictures.jpeg()[2:],
        b"\xff\xd8" + b"\xff\xfe\0\x02" * 1_000_000 + pictures.jpeg()[2:],
        b"\xff\xd8" + b"\xff" * 4_000_000 + pictures.jpeg()[2:],
    ],
    ids=["all its colours at 65 million pixels", "27 scans", "Exif segments", "comments", "fill bytes"],
)
def test_a_jpeg_that_takes_too_much_to_decode_is_refused(shared: Api, picture: bytes) -> None:
    answer = shared.upload(picture)
    assert (answer.status_code, answer.json()["code"]) == (422, "image_too_complex")


def test_a_workers_memory_stays_under_300_mb_whatever_is_sent(tmp_path: Path) -> None:
    heavy = [
        WHOLE["progressive jpeg of 64 megapixels"],
        WHOLE["jpeg of 65 million pixels"],
        pictures.jpeg(3),
        pictures.png_of_zeros(9286, 6999, 16, 6),
        pictures.progressive_jpeg(13000, 5000, subsampling=0),
        pictures.png()[:33] + chunk(b"zTXt", b"bomb\0\0" + zeros(100_000_000)) + pictures.png()[33:],
        b"\xff\xd8\xff".ljust(31 * 1024 * 1024, b"\0"),
    ]
    fields = [(f"field{number}", (None, b"x" * 250_000)) for number in range(19)]
    with serving(tmp_path / "served", {}, workers=1) as server, ThreadPoolExecutor(8) as pool:
        api = Api(server)
        list(pool.map(api.upload, heavy * 3))
        list(pool.map(lambda _: api.request("POST", "/api/temp-image-upload", files=fields), range(8)))
        (worker,) = server.workers()
        peak = next(line for line in Path(f"/proc/{worker}/status").read_text().splitlines() if "VmHWM" in line)
        assert int(peak.split()[1]) < 300 * 1024, peak


def test_only_the_header_is_checked_if_the_setting_says_so(tmp_path: Path) -> None:
    with serving(tmp_path / "served", {"HEROIMG_IMAGE_CHECK": "header"}) as server:
        api = Api(server)
        assert api.upload(DAMAGED["half a jpeg"]).status_code == 200
        assert api.upload(DAMAGED["half a png"]).status_code == 200
        assert api.upload(NO_PICTURES["html"]).status_code == 415
        assert api.upload(pictures.png_of_size(60000, 60000)).status_code == 422


def test_the_samples_match_their_names() -> None:
    assert Image.open(BytesIO(WHOLE["phone's jpeg"])).format == "MPO"
    assert Image.open(BytesIO(WHOLE["interlaced png"])).info["interlace"] == 1
    assert getattr(Image.open(BytesIO(WHOLE["animated png"])), "n_frames") == 2  # noqa: B009
    assert Image.open(BytesIO(WHOLE["progressive jpeg"])).info["progressive"]
    assert Image.open(BytesIO(WHOLE["cmyk jpeg"])).mode == "CMYK"
