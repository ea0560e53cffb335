"""The service on a real port: answers, refusals, batches, and what must not happen."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import tifffile
from helpers_pipeline import make_image
from helpers_service import MODEL, SIDE, TOKEN, crops, make_service, npy, upload
from PIL import Image

from tumble import SSRVAEClassifier
from tumble.client import Client, ServiceError
from tumble.errors import ConfigError, ModelFileError
from tumble.micrograph.read import open_frames
from tumble.micrograph.readers.npy import npy_frames
from tumble.service.batching import Batcher, Busy
from tumble.service.guard import BodyLimits
from tumble.service.images import InputLimits
from tumble.service.model import Answers, load_served_model
from tumble.service.run import running_service
from tumble.service.schemas import Classification


@pytest.fixture(scope="module")
def estimator():
    return SSRVAEClassifier.load(MODEL, device="cpu")


@pytest.fixture(scope="module")
def url():
    with running_service(make_service()) as url:
        yield url


@pytest.fixture
def http(url):
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


def as_png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def as_tiff(array, **kwargs):
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, photometric="minisblack", **kwargs)
    return stream.getvalue()


# --- answers ---------------------------------------------------------------------------------------------------------


def test_the_answer_is_what_the_estimator_says(http, estimator):
    X = crops(5)
    answer = http.post("/classify", **upload(npy(X))).raise_for_status().json()
    Classification.model_validate(answer)  # the answer is not checked where it is made
    rows = answer["particles"]
    assert [row["class"] for row in rows] == estimator.predict(X).tolist()
    given = [[row["probabilities"][name] for name in estimator.classes_] for row in rows]
    np.testing.assert_allclose(given, estimator.predict_proba(X), atol=1e-6)
    np.testing.assert_allclose([row["latent"] for row in rows], estimator.transform(X), atol=1e-5)
    np.testing.assert_allclose([row["novelty"] for row in rows], estimator.novelty(X), rtol=1e-4)
    pose = estimator.pose(X)
    np.testing.assert_allclose([row["pose"]["angle_rad"] for row in rows], pose.angle_rad, atol=1e-4)
    np.testing.assert_allclose([row["pose"]["shift_col_px"] for row in rows], pose.shift_px[:, 1], atol=1e-5)


@pytest.mark.parametrize("options", ["ssrvae-options", "ssrvae-paper"])
def test_one_pass_gives_the_numbers_of_the_estimators_own_methods(options):
    folder = MODEL.with_name(options)
    estimator = SSRVAEClassifier.load(folder, device="cpu")
    X = crops(6) / np.float32(255)
    said = load_served_model(folder).predict(X[:, None])
    np.testing.assert_allclose(said.probabilities, estimator.predict_proba(X), atol=1e-6)
    np.testing.assert_allclose(said.latent, estimator.transform(X), atol=1e-5)
    np.testing.assert_allclose(said.pose.scale, estimator.pose(X).scale, atol=1e-5)


def test_every_way_to_send_a_crop_gives_the_same_answer(http):
    X = crops(3)
    expected = [row["probability"] for row in http.post("/classify", **upload(npy(X))).json()["particles"]]
    ways = {
        "stack.tif": as_tiff(X),
        "stack.tiff": as_tiff(X, compression="zlib"),
        "no-suffix": as_tiff(X),
        "channels.npy": npy(X[:, None]),
        "floats.npy": npy(X / np.float32(255)),
    }
    for name, content in ways.items():
        rows = http.post("/classify", **upload(content, name)).raise_for_status().json()["particles"]
        np.testing.assert_allclose([row["probability"] for row in rows], expected, atol=1e-5, err_msg=name)
    colours = np.repeat(X[0][:, :, None], 3, axis=2)
    for array in (X[0], colours):
        row = http.post("/classify", **upload(as_png(array), "../../one.png")).raise_for_status().json()["particles"]
        np.testing.assert_allclose(row[0]["probability"], expected[0], atol=1e-5)
    for body in (X[:1].tolist(), X[0].tolist(), {"image": X[0].tolist()}, {"images": (X[:1] / 255).tolist()}):
        row = http.post("/classify", json=body).raise_for_status().json()["particles"]
        np.testing.assert_allclose(row[0]["probability"], expected[0], atol=1e-5)


def test_the_particles_of_a_micrograph_come_with_place_and_size(http):
    image, _ = make_image()
    answer = http.post("/classify?kind=micrograph&pixel_size_nm=2", **upload(as_tiff(image), "a.tif")).json()
    Classification.model_validate(answer)
    assert answer["image"] == {"height_px": 120, "width_px": 192, "pixel_size_nm": 2.0, "notes": []}
    assert len(answer["particles"]) == 40
    for row in answer["particles"]:
        box, size = row["box"], row["size"]
        top, left = box["first_row_px"], box["first_col_px"]
        inside = image[top : top + box["height_px"], left : left + box["width_px"]]
        assert inside.max() > 150
        assert box["first_row_px"] <= box["row_px"] <= top + box["height_px"]
        assert size["equivalent_diameter_nm"] == pytest.approx(2 * size["equivalent_diameter_px"])
        assert size["area_nm2"] == pytest.approx(4 * size["area_px"])
    same = http.post("/classify?kind=micrograph", json=image.tolist()).json()
    assert [row["class"] for row in same["particles"]] == [row["class"] for row in answer["particles"]]
    assert same["particles"][0]["size"]["area_nm2"] is None


def test_an_exported_classifier_is_served_without_pose_and_latent_factors(tmp_path, estimator):
    pytest.importorskip("onnxruntime")
    estimator.export_onnx(tmp_path / "small.onnx")
    served = load_served_model(tmp_path / "small.onnx")
    said = served.predict(crops(4)[:, None])
    np.testing.assert_allclose(said.probabilities, estimator.predict_proba(crops(4)), atol=1e-4)
    assert (served.name, served.kind, said.latent, said.pose) == ("small", "classifier", None, None)


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "model.txt").write_text("no")
    for path, words in ((tmp_path / "none", "no such model"), (tmp_path / "model.txt", "neither")):
        with pytest.raises(ModelFileError, match=words):
            load_served_model(path)


# --- refusals --------------------------------------------------------------------------------------------------------


def bomb_png():
    """A PNG of 60,000 x 60,000 px in some 3 MB."""

    def chunk(kind, content):
        return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)

    head = (60_000).to_bytes(4) * 2 + bytes([8, 0, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    )


def promising_npy():
    content = npy(np.zeros((2, 2), np.uint8))
    return content.replace(b"(2, 2)", b"(99999999, 99999)").replace(b" " * 13 + b"\n", b"\n")


BAD_FILES = {
    "empty.npy": b"",
    "text.txt": b"hello, hello",
    "noise.tif": b"II*\x00" + bytes(range(200)),
    "bomb.png": bomb_png(),
    "bomb.npy": promising_npy(),
    "half.npy": npy(crops(3))[:-100],
    "objects.npy": npy(np.array([{"a": 1}])),
    "large.npy": npy(np.zeros((40, 40), np.uint8)),
    "nan.npy": npy(np.full((16, 16), np.nan)),
    "huge.npy": npy(np.full((16, 16), 1e300)),
    "sixteen.npy": npy(np.zeros((16, 16), np.uint16)),
    "complex.npy": npy(np.zeros((16, 16), complex)),
    "line.npy": npy(np.zeros(16)),
    "none.npy": npy(np.zeros((0, 16, 16))),
    "links.h5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "\x1b[31m\n.npy": b"x",
}


@pytest.mark.parametrize("kind", ["crops", "micrograph"])
@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_gets_a_sentence(http, name, kind):
    response = http.post(f"/classify?kind={kind}", **upload(BAD_FILES[name], name))
    if kind == "micrograph" and name == "sixteen.npy":  # a constant image
        assert "same" in response.text or "value" in response.text
    assert response.status_code in (400, 422), response.text
    detail = response.json()["detail"]
    assert detail.endswith((".", ")")), detail
    assert "/tmp" not in detail
    assert "\x1b" not in detail


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"[[]]",
        b'"x"',
        b"{}",
        b"1",
        b"[1e999]",
        b"[[1, 2], [3]]",
        b'[["a", 1]]',
        b"[" * 100_000,
        b"[[true]]",
        b"[[" + b"9" * 400 + b"]]",
        b"[[NaN]]",
        b'{"images": null}',
        b"\xff\xfe",
        b"[[[[[1]]]]]",
        b"[[256]]",
        b"[" + b"9" * 5000 + b"]",
    ],
    ids=lambda body: repr(body[:12]),
)
@pytest.mark.parametrize("kind", ["crops", "micrograph"])
def test_bad_json_gets_a_sentence(http, body, kind):
    response = http.post(f"/classify?kind={kind}", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422, response.text
    assert response.json()["detail"]


def test_json_out_of_range_says_how_to_write_it(http):
    response = http.post("/classify", json=np.full((SIDE, SIDE), 300).tolist())
    assert "0 to 255" in response.json()["detail"]


def test_wrong_requests_are_refused_with_the_right_status(http):
    assert http.post("/classify", content=b"x").status_code == 415
    assert http.post("/classify", data={"file": "text"}).status_code == 415
    assert http.post("/classify", files={"other": b"x"}).status_code == 422
    broken = {"Content-Type": "multipart/form-data"}
    assert http.post("/classify", content=b"x", headers=broken).status_code == 400
    assert http.post("/classify?kind=video", **upload(npy(crops()))).status_code == 422
    for size in ("0", "-1", "nan", "inf", "x"):
        response = http.post(f"/classify?kind=micrograph&pixel_size_nm={size}", **upload(npy(crops())))
        assert response.status_code == 422
        assert "pixel_size_nm" in response.json()["detail"]
    assert http.get("/classify").status_code == 405
    assert http.get("/etc/passwd").status_code == 404
    assert http.get("/docs").status_code == 404


def test_an_image_without_particles_gets_a_sentence(http):
    image = np.random.default_rng(0).normal(100, 0.1, (64, 64)).astype(np.float32)
    image[0, 0] += 1
    response = http.post("/classify?kind=micrograph&polarity=bright", **upload(npy(image)))
    assert response.status_code in (200, 422)
    image[:] = 7
    assert "value 7" in http.post("/classify?kind=micrograph", **upload(npy(image))).json()["detail"]


def test_a_file_cannot_make_the_service_open_another(http, tmp_path):
    secret = tmp_path / "secret.tif"
    tifffile.imwrite(secret, np.full((SIDE, SIDE), 255, np.uint8))
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="16" SizeY="16" SizeZ="1" '
        'SizeC="1" SizeT="2"><TiffData IFD="0" FirstT="0" PlaneCount="1"><UUID FileName="a.tif">urn:uuid:1</UUID>'
        f'</TiffData><TiffData IFD="0" FirstT="1" PlaneCount="1"><UUID FileName="{secret}">urn:uuid:2</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(crops(1)[0], description=xml, metadata=None)
    trap = tmp_path / "trap.ome.tif"
    trap.write_bytes(stream.getvalue())
    with tifffile.TiffFile(trap) as opened:  # the trap works where a file is trusted
        assert opened.asarray().shape == (2, SIDE, SIDE)
    answer = http.post("/classify", **upload(trap.read_bytes(), "trap.ome.tif")).raise_for_status().json()
    alone = http.post("/classify", **upload(npy(crops(1)))).json()
    assert len(answer["particles"]) == 1
    assert answer["particles"][0]["probability"] == pytest.approx(alone["particles"][0]["probability"], abs=1e-6)


def test_too_much_is_refused_before_it_is_read():
    settings = {
        "body": BodyLimits(max_bytes=20_000, max_seconds=1),
        "input": InputLimits(max_crops=3, max_image_px=500),
    }
    with running_service(make_service(**settings)) as url, httpx.Client(base_url=url) as http:
        assert http.post("/classify", **upload(bytes(30_000))).status_code == 413

        assert "at most 3 crops" in http.post("/classify", **upload(npy(crops(4)))).json()["detail"]
        large = http.post("/classify?kind=micrograph", **upload(npy(np.zeros((30, 30), np.uint8))))
        assert "at most 500 px" in large.json()["detail"]
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as endless:
            endless.settimeout(10)
            endless.sendall(b"POST /classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n")
            endless.sendall(b"Transfer-Encoding: chunked\r\n\r\n" + 21 * (b"3e8\r\n" + bytes(1000) + b"\r\n"))
            said = b""
            while part := endless.recv(1000):  # ends, as the service hangs up
                said += part
            assert said.startswith(b"HTTP/1.1 413")
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(b"POST /classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n")
            slow.sendall(b"Content-Length: 100\r\n\r\n[")
            slow.settimeout(10)
            assert slow.recv(1000).startswith(b"HTTP/1.1 408")
        assert http.post("/classify", **upload(npy(crops(3)))).status_code == 200


# --- who may ask -----------------------------------------------------------------------------------------------------


def test_another_address_needs_a_token():
    with pytest.raises(ConfigError, match="token"):
        make_service(host="0.0.0.0")


@pytest.mark.parametrize("path", ["/health", "/model", "/metrics", "/openapi.json", "/classify", "/nothing"])
def test_the_token_is_asked_for_on_every_route(path):
    with running_service(make_service(token=TOKEN)) as url, httpx.Client(base_url=url) as http:
        method = "POST" if path == "/classify" else "GET"
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
            assert http.request(method, path, headers=given).status_code == 401
        right = http.request(method, path, headers={"Authorization": f"Bearer {TOKEN}"})
        assert right.status_code == {"/nothing": 404, "/classify": 415}.get(path, 200)


def test_other_hosts_and_other_sites_are_refused(http, url):
    assert http.get("/health", headers={"Host": "evil.example"}).status_code == 421
    sent = upload(npy(crops(1)))
    assert http.post("/classify", headers={"Origin": "http://evil.example"}, **sent).status_code == 403
    assert http.post("/classify", headers={"Origin": "null"}, **sent).status_code == 403
    assert http.post("/classify", headers={"Origin": url}, **sent).status_code == 200


# --- many at once ----------------------------------------------------------------------------------------------------


def test_concurrent_requests_are_classified_together_and_not_mixed_up(estimator):
    X = crops(24)
    expected = estimator.predict_proba(X)
    app = make_service(max_wait_s=0.05)
    with running_service(app) as url, Client(url) as client:

        def ask(i):
            array = X[i % 24] if i % 2 else X[i % 24] / np.float32(255)  # both kinds in one batch
            return client.classify(array).probabilities[0]

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(ask, range(96)))
        metrics = httpx.get(f"{url}/metrics").text
    np.testing.assert_allclose(answers, expected[np.arange(96) % 24], atol=1e-5)
    count = next(line for line in metrics.splitlines() if line.startswith("tumble_batch_crops_count"))
    assert float(count.split()[1]) < 96
    assert 'tumble_requests_total{route="/classify",status="200"} 96.0' in metrics
    total = sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith("tumble_particles_total"))
    assert total == 96


def test_where_too_much_waits_the_service_says_when_to_ask_again():
    release, begun = threading.Event(), threading.Event()

    def classify(x):
        begun.set()
        release.wait(10)
        return Answers(x.reshape(len(x), -1)[:, :1].astype(np.float32))

    batcher = Batcher(classify, max_batch=2, max_wait_s=0, max_waiting=4)
    running = batcher.submit(np.full((1, 1, 8, 8), 1, np.uint8))
    begun.wait(10)
    waiting = [batcher.submit(np.full((2, 1, 8, 8), k, np.uint8)) for k in (2, 3)]
    with pytest.raises(Busy, match="again in 1 s"):
        batcher.submit(np.zeros((1, 1, 8, 8), np.uint8))
    waiting[0][0].cancel()
    release.set()
    assert running[0].result(10).probabilities.tolist() == [[1]]
    assert waiting[1][0].result(10).probabilities.tolist() == [[3], [3]]
    batcher.close()
    with pytest.raises(Busy):
        batcher.submit(np.zeros((1, 1, 8, 8), np.uint8))


def test_large_requests_are_cut_and_a_failing_batch_fails_alone():
    sizes = []

    def classify(x):
        sizes.append(len(x))
        if x.max() == 99:
            raise ValueError("broken")
        return Answers(x.reshape(len(x), -1)[:, :1].astype(np.float32))

    batcher = Batcher(classify, max_batch=4, max_wait_s=0, max_waiting=10)
    futures = batcher.submit(np.arange(11, dtype=np.uint8).repeat(64).reshape(11, 1, 8, 8))
    values = np.concatenate([future.result(10).probabilities[:, 0] for future in futures])
    assert values.tolist() == list(range(11))
    assert max(sizes) <= 4
    with pytest.raises(ValueError, match="broken"):
        batcher.submit(np.full((1, 1, 8, 8), 99, np.uint8))[0].result(10)
    assert batcher.submit(np.full((1, 1, 8, 8), 5, np.uint8))[0].result(10).probabilities.tolist() == [[5]]
    batcher.close()


def test_requests_that_have_arrived_are_answered_before_the_end():
    app = make_service(max_wait_s=0.5)
    answers = []
    with running_service(app) as url:
        thread = threading.Thread(target=lambda: answers.append(httpx.post(f"{url}/classify", **upload(npy(crops(2))))))
        thread.start()
        while not answers and not httpx.get(f"{url}/health").json()["waiting"]:
            time.sleep(0.02)
    thread.join(20)
    assert [answer.status_code for answer in answers] == [200]


# --- the client ------------------------------------------------------------------------------------------------------


def test_the_client_gives_a_table(url, tmp_path, estimator):
    X = crops(4)
    with Client(url) as client:
        said = client.classify(X)
        assert said.classes == ("bar", "disc")
        assert len(said) == 4
        np.testing.assert_allclose(said.probabilities, estimator.predict_proba(X), atol=1e-6)
        assert said.table["predicted"].tolist() == estimator.predict(X).tolist()
        assert {"probability", "novelty", "angle_rad", "shift_row_px", "latent_0", "latent_1"} <= set(said.table)
        tifffile.imwrite(tmp_path / "image.tif", make_image()[0])
        found = client.classify_micrograph(tmp_path / "image.tif", pixel_size_nm=2, polarity="bright")
        assert len(found) == 40
        assert (found.table["equivalent_diameter_nm"] > 10).all()
        assert found.image is not None
        assert client.model()["classes"] == ["bar", "disc"]
        assert client.health()["status"] == "ok"
        with pytest.raises(ServiceError, match="takes crops of 16 x 16"):
            client.classify(np.zeros((20, 20), np.uint8))


def test_the_client_says_what_is_wrong(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ServiceError, match="tumble serve"):
            Client(f"http://127.0.0.1:{unused.getsockname()[1]}").health()
    with pytest.raises(ConfigError, match="http://"):
        Client("localhost:8000")


def test_the_openapi_has_examples_and_names_the_token():
    app = make_service(token=TOKEN)
    schema = json.loads(json.dumps(app.openapi()))
    operation = schema["paths"]["/classify"]["post"]
    assert set(operation["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    example = operation["responses"]["200"]["content"]["application/json"]["example"]
    Classification.model_validate(example)
    assert {"401", "413", "422", "503"} <= set(operation["responses"])
    assert schema["security"] == [{"token": []}]


# --- NPY in memory ----------------------------------------------------------------------------------------------------


def test_crops_in_npy_touch_no_disk(http, monkeypatch):
    def refused(*_, **__):
        raise AssertionError("a file was made")

    monkeypatch.setattr("tumble.service.images.TemporaryDirectory", refused)
    for X in (crops(1), crops(20), np.repeat(crops(20), 200, axis=0)):  # beyond 1 MB a form keeps its files on disk
        http.post("/classify", **upload(npy(X))).raise_for_status()


@pytest.mark.parametrize("dtype", ["uint8", ">u2", "<i4", "float16", ">f8", "bool"])
@pytest.mark.parametrize("shape", [(6, 8), (3, 6, 8), (6, 8, 3), (2, 3, 6, 8), (1, 1, 6, 8)])
def test_npy_in_memory_is_read_as_the_file_is(tmp_path, dtype, shape):
    array = np.random.default_rng(0).integers(0, 99, shape).astype(dtype)
    for laid_out in (array, np.asfortranarray(array)):
        file = tmp_path / "a.npy"
        np.save(file, laid_out)
        here = npy_frames(file.read_bytes(), "a.npy")
        with open_frames(file) as there:
            assert here.n == there.n
            for one, other in zip(here, there, strict=True):
                assert one.array.dtype == other.array.dtype
                np.testing.assert_array_equal(one.array, other.array)


def damaged_npys():
    whole = npy(crops(2))
    promise = npy(np.zeros((2, 2), np.uint8)).replace(b"(2, 2)", b"(9**9, 9)")
    return {
        "cut within its values": whole[:-1],
        "cut within its header": whole[:60],
        "nothing but its beginning": whole[:8],
        "of a version that is not known": whole[:6] + b"\x09" + whole[7:],
        "a header that is code": promise,
        "a promise of more than there is": npy(np.zeros((2, 2), np.uint8)).replace(b"(2, 2)", b"(99999999999, 99999)"),
        "negative": npy(np.zeros((2, 2), np.uint8)).replace(b"(2, 2), }  ", b"(-2, -2), }"),
        "objects": b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (2, 2), }".ljust(118),
        "records": npy(np.zeros((4, 4), [("a", "u1"), ("b", "f4")])),
        "text": npy(np.full((16, 16), "a")),
    }


@pytest.mark.parametrize("name", damaged_npys())
def test_damaged_npy_is_refused_in_a_sentence(http, name):
    response = http.post("/classify", **upload(damaged_npys()[name]))
    assert response.status_code == 422, response.text
    assert response.json()["detail"].startswith("crops.npy: ")


# --- the load that is measured --------------------------------------------------------------------------------------


def test_the_clients_of_the_benchmark_count_answers_and_errors(url):
    from benchmarks.http_load import ask

    host, port = url.removeprefix("http://").split(":")
    form = httpx.Request("POST", f"{url}/classify", **upload(npy(crops(1))))
    form.read()

    def raw(target):
        lines = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in form.headers.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + form.content

    run = asyncio.run(ask(host, int(port), 4, 0.5, raw("/classify")))
    assert len(run.times) >= 4
    assert not run.errors
    run = asyncio.run(ask(host, int(port), 2, 0.2, raw("/nowhere")))
    assert run.times == []
    assert set(run.errors) == {"404"}
