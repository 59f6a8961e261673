"""Photographs of every kind, chosen in a file input of each engine, made to fit and uploaded by the module."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageOps

from tests.helpers import pictures
from tests.helpers.engines import Engine
from tests.helpers.front_end import ShopElsewhere
from tests.helpers.pictures import encode, noise, quarters
from tests.helpers.serving import ROOT

LIMIT = 1024 * 1024  # see conftest.py
DECODER = ROOT / "node_modules" / "libheif-js" / "libheif-wasm" / "libheif-bundle.mjs"

UPLOAD_FILE = """
    const heroimg = await import(args[0] + "/static/heroimg.js");
    heroimg.setBaseUrl(args[0]);
    if (args[2]) heroimg.setHeicDecoder(() => import("/libheif-bundle.mjs"));
    const [file] = document.querySelector("input").files;
    return heroimg.uploadImage(file, args[1]).catch(({ code, message }) => `${code}: ${message}`);
"""


class UploadPage:
    """A page that uses the module, on which a customer chooses files."""

    def __init__(self, engine: Engine, shop: ShopElsewhere, folder: Path) -> None:
        self.engine = engine
        self.shop = shop
        self.folder = folder
        shop.front_end.serve(
            {"/page": "<!doctype html><input type=file>", "/libheif-bundle.mjs": DECODER.read_bytes()},
        )
        engine.go(f"{shop.front_end.url}/page")

    def upload(self, data: bytes, fit: Any = True, name: str = "IMG_1.JPG", has_decoder: bool = False) -> str:
        """Choose and upload a file; return the id, or the failure's code and sentence."""
        (self.folder / name).write_bytes(data)
        self.engine.choose("input", self.folder / name)
        return str(self.engine.call(UPLOAD_FILE, self.shop.api.server.url, {"fit": fit}, has_decoder))

    def uploaded(self, data: bytes, **options: Any) -> bytes:
        """Choose and upload a file; return the bytes that the server got."""
        answer = self.shop.api.retrieve(self.upload(data, **options))
        assert answer.status_code == 200, answer.text
        return answer.content


@pytest.fixture
def upload_page(engine: Engine, elsewhere: ShopElsewhere, tmp_path: Path) -> UploadPage:
    return UploadPage(engine, elsewhere, tmp_path)


def is_near(image: Image.Image, place: tuple[int, int], colour: tuple[int, int, int]) -> bool:
    pixel = image.convert("RGB").getpixel(place)
    assert isinstance(pixel, tuple)
    return all(abs(one - other) < 24 for one, other in zip(pixel, colour, strict=True))


RED, BLUE, GREEN, WHITE = (192, 32, 32), (32, 32, 192), (32, 192, 32), (255, 255, 255)


def test_a_png_or_jpeg_within_the_limits_stays_as_it_is(upload_page: UploadPage) -> None:
    for data in (pictures.jpeg(), pictures.png(), pictures.phone_jpeg(), pictures.jpeg(0.5).ljust(LIMIT, b"\0")):
        assert upload_page.uploaded(data, name="wrong.webp") == data


def test_every_other_kind_becomes_a_jpeg_whatever_its_name(upload_page: UploadPage) -> None:
    for kind in ("WEBP", "AVIF", "GIF", "BMP"):
        image = Image.open(BytesIO(upload_page.uploaded(encode(quarters(), kind, quality=90))))
        assert (image.format, image.size) == ("JPEG", (400, 200)), kind
        assert is_near(image, (50, 50), RED), kind
        assert is_near(image, (350, 50), BLUE), kind
        assert is_near(image, (50, 150), GREEN), kind


def test_a_picture_of_too_many_bytes_becomes_one_that_fits(upload_page: UploadPage) -> None:
    large = pictures.photograph(1400, 1000, quality=97)
    assert len(large) > LIMIT
    data = upload_page.uploaded(large)
    assert len(data) <= LIMIT
    assert Image.open(BytesIO(data)).size == (1400, 1000)
    noisy = encode(noise(1400, 1400), "PNG")
    image = Image.open(BytesIO(upload_page.uploaded(noisy)))  # no quality makes it small enough
    assert image.format == "JPEG"
    assert 1000 <= image.width < 1400


@pytest.mark.proof
def test_a_photograph_of_48_megapixels_and_24_mb_becomes_one_that_fits(upload_page: UploadPage) -> None:
    large = pictures.photograph(8000, 6000, quality=72)
    assert len(large) > 24e6
    assert Image.open(BytesIO(upload_page.uploaded(large, fit={"maxEdge": 1024}))).size == (1024, 768)


@pytest.mark.proof
def test_a_picture_of_too_many_pixels_becomes_one_of_16_million(upload_page: UploadPage) -> None:
    data = upload_page.uploaded(encode(Image.new("1", (9000, 7500), 1), "PNG"))
    image = Image.open(BytesIO(data))
    assert image.format == "JPEG"
    assert 15_900_000 < image.width * image.height <= 16_000_000


def test_the_longer_edge_is_scaled_down_to_its_maximum(upload_page: UploadPage) -> None:
    for width, height in ((3000, 1000), (1000, 3001)):
        image = Image.open(BytesIO(upload_page.uploaded(pictures.photograph(width, height), fit={"maxEdge": 2048})))
        assert max(image.size) == 2048
        assert min(image.size) == pytest.approx(683, abs=1)
    data = pictures.photograph(2048, 700, quality=40)
    assert upload_page.uploaded(data, fit={"maxEdge": 2048}) == data


def test_a_picture_that_was_taken_sideways_is_turned_upright(upload_page: UploadPage) -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        taken = encode(quarters(), "JPEG", exif=exif, quality=95)
        image = Image.open(BytesIO(upload_page.uploaded(taken, fit={"maxEdge": 200})))
        upright = ImageOps.exif_transpose(Image.open(BytesIO(taken))).resize(image.size)
        assert max(image.size) == 200
        assert (image.width < image.height) == (orientation > 4)
        assert not image.getexif().get(0x0112)
        for place in ((25, 25), (75, 25), (25, 75), (75, 75)):
            difference = ImageChops.difference(upright, image).getpixel(place)
            assert max(difference if isinstance(difference, tuple) else ()) < 24, orientation


def test_a_cmyk_jpeg_becomes_an_rgb_jpeg(upload_page: UploadPage) -> None:
    printed = encode(quarters().convert("CMYK"), "JPEG", quality=95)
    image = Image.open(BytesIO(upload_page.uploaded(printed, fit={"maxEdge": 200})))
    assert image.mode == "RGB"
    assert is_near(image, (25, 25), RED)
    assert is_near(image, (175, 25), BLUE)


def test_a_picture_of_one_column_stays_one_pixel_wide(upload_page: UploadPage) -> None:
    image = Image.open(BytesIO(upload_page.uploaded(encode(noise(1, 20_000), "PNG"), fit={"maxEdge": 2048})))
    assert image.size == (1, 2048)


def test_transparent_parts_become_white(upload_page: UploadPage) -> None:
    image = quarters().convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 100, 400, 200))
    for kind in ("WEBP", "GIF", "PNG"):
        made = Image.open(BytesIO(upload_page.uploaded(encode(image, kind), fit={"maxEdge": 200})))
        assert is_near(made, (25, 75), WHITE), kind
        assert is_near(made, (25, 25), RED), kind


def test_a_jpeg_without_its_end_marker_is_redrawn_and_half_a_jpeg_is_refused(upload_page: UploadPage) -> None:
    data = pictures.jpeg(0.3)
    image = Image.open(BytesIO(upload_page.uploaded(data[:-2], fit={"maxEdge": 300})))
    assert image.size == (300, 300)
    for part in (data[: len(data) // 2], data[:-200]):
        assert upload_page.upload(part, fit={"maxEdge": 300}).startswith("image_damaged: This picture is damaged")
    large = pictures.jpeg(3)
    assert upload_page.upload(large[: len(large) // 2]).startswith("image_damaged: The end of this picture is missing.")


def test_the_server_decides_if_a_plain_corner_may_be_a_missing_end(upload_page: UploadPage) -> None:
    sky = noise(594, 594).copy()
    sky.paste("white", (0, 0, 594, 100))
    progressive = encode(noise(594, 594), "JPEG", progressive=True)
    for data in (encode(sky, "JPEG")[:-2], progressive[:-2], encode(sky.resize((400, 400)), "PNG")[:-12]):
        assert upload_page.uploaded(data, fit={"maxEdge": 300}) == data


def test_half_a_picture_of_every_other_kind_is_refused(upload_page: UploadPage) -> None:
    data = encode(noise(600, 400), "PNG")
    assert upload_page.upload(data[: len(data) // 2], fit={"maxEdge": 300}).startswith("image_damaged")
    missing_end = "image_damaged: The end of this picture is missing."
    for kind, options in (
        ("WEBP", {}),
        ("AVIF", {}),
        ("BMP", {}),
        ("GIF", {"interlace": 0}),
        ("GIF", {"interlace": 1}),
    ):
        data = encode(noise(600, 400), kind, **options)
        assert upload_page.upload(data[: len(data) // 2]).startswith(missing_end), (kind, options)
    large_box = b"\0\0\0\1mdat" + (100).to_bytes(8) + bytes(83)
    for data in (encode(quarters(), "AVIF") + large_box, encode(quarters(), "BMP")[:-1]):
        assert upload_page.upload(data).startswith(missing_end)


def test_a_whole_picture_is_taken_whatever_follows_it(upload_page: UploadPage) -> None:
    avif, bmp, gif = (encode(quarters(), kind, quality=90) for kind in ("AVIF", "BMP", "GIF"))
    last_box = avif.index(b"mdat") - 4
    wholes = {
        "AVIF and a trailer": avif + b"\xff\xff\xff\xffSEFT",
        "AVIF whose last box extends to the end": avif[:last_box] + bytes(4) + avif[last_box + 4 :],
        "AVIF with a size of 64 bits": avif + b"\0\0\0\1mdat" + (17).to_bytes(8) + b"x",
        "animated AVIF": encode(quarters(), "AVIF", save_all=True, append_images=[quarters("#20c020")]),
        "BMP and a trailer": bmp + b"x",
        "BMP with a wrong size, which browsers ignore": bmp[:2] + b"\xff\xff\xff\x7f" + bmp[6:],
        "GIF and a trailer": gif + b"x",
        "animated GIF": encode(quarters(), "GIF", save_all=True, append_images=[quarters("#20c020")]),
    }
    for name, data in wholes.items():
        image = Image.open(BytesIO(upload_page.uploaded(data)))
        assert image.size == (400, 200), name
        assert is_near(image, (50, 50), RED), name


def test_a_heic_photograph_needs_a_decoder_and_says_so(upload_page: UploadPage) -> None:
    data = encode(quarters(), "HEIF", quality=90)
    assert upload_page.upload(data).startswith("heic_unsupported: This photograph is a HEIC file,")
    image = Image.open(BytesIO(upload_page.uploaded(data, has_decoder=True)))
    assert (image.format, image.size) == ("JPEG", (400, 200))
    assert is_near(image, (50, 50), RED)
    assert is_near(image, (350, 50), BLUE)
    size = data.index(b"ispe") + 8
    huge = data[:size] + struct.pack(">II", 6000, 4100) + data[size + 8 :]
    assert upload_page.upload(huge, has_decoder=True).startswith(
        "too_many_pixels: This HEIC photograph has 25 megapixels; this browser can open at most 24."
    )
    damaged = upload_page.upload(data[: len(data) // 2], has_decoder=True)
    assert damaged.startswith("image_damaged: The end of this picture is missing.")


def test_an_avif_that_names_a_general_brand_first_is_not_called_heic(upload_page: UploadPage) -> None:
    data = encode(quarters(), "AVIF", quality=90)
    general = data[:8] + b"mif1" + data[12:]
    assert Image.open(BytesIO(upload_page.uploaded(general))).size == (400, 200)
    undecodable = general[:32] + bytes(200)
    assert upload_page.upload(undecodable).startswith("not_a_picture: This browser cannot open this file as a picture.")


def test_a_decoder_for_heic_that_did_not_load_is_a_lost_connection(upload_page: UploadPage) -> None:
    upload_page.shop.front_end.serve({"/page": "<!doctype html><input type=file>"})  # without the decoder
    upload_page.engine.go(f"{upload_page.shop.front_end.url}/page?")
    failure = upload_page.upload(encode(quarters(), "HEIF"), has_decoder=True)
    assert failure.startswith("connection_lost: The program that opens this HEIC photograph did not load.")


def test_a_file_that_is_not_a_picture_is_refused_before_it_is_sent(upload_page: UploadPage) -> None:
    sentence = "not_a_picture: This browser cannot open this file as a picture. Please choose a JPEG or PNG."
    for data in (b"<!doctype html>", b"x", b"%PDF-1.7" + bytes(1000)):
        assert upload_page.upload(data) == sentence
    assert upload_page.upload(b"").startswith("file_unreadable: The file is empty or cannot be read")


def test_the_page_itself_draws_nothing_unless_there_is_no_worker(upload_page: UploadPage) -> None:
    data = encode(quarters(), "WEBP")
    upload_page.engine.call("""
        globalThis.draws = 0;
        const { getContext } = HTMLCanvasElement.prototype;
        HTMLCanvasElement.prototype.getContext = function (...kind) {
            draws += 1;
            return getContext.apply(this, kind);
        };
    """)
    upload_page.uploaded(data)
    assert upload_page.engine.call("return draws") == 0
    upload_page.engine.call("delete globalThis.Worker; delete globalThis.createImageBitmap;")
    assert Image.open(BytesIO(upload_page.uploaded(data))).size == (400, 200)
    assert upload_page.engine.call("return draws") > 0
