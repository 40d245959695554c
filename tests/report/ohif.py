"""The viewer OHIF as a page, served beside an Orthanc with its DICOMweb plug-in, for a browser.

    with OhifServer(ohif_folder(), pacs.http_port) as ohif, browser_page() as page:
        page.goto(ohif.study(study_uid))

OHIF is the npm package `@ohif/app` (MIT): its `dist` is the finished application.
"""

from __future__ import annotations

import http.client
import json
import mimetypes
import shutil
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.conftest import ROOT, skip_or_fail

if TYPE_CHECKING:
    from playwright.sync_api import Page

VERSION = "3.13.2"
"""The version of OHIF that the statements about it hold for."""

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
"""Where Debian's package `orthanc-dicomweb` puts the plug-in."""

ORTHANC_OPTIONS: dict[str, Any] = {
    "Plugins": [str(PLUGIN)],
    "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    "DefaultEncoding": "Utf8",
}

CHROMIUM = (
    "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist", "--disable-dev-shm-usage",
)  # fmt: skip
"""What a browser needs that runs as root and draws without a graphics card."""

_SOURCE = {
    "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
    "sourceName": "orthanc",
    "configuration": {
        "friendlyName": "Orthanc",
        "name": "orthanc",
        "qidoRoot": "/dicom-web",
        "wadoRoot": "/dicom-web",
        "wadoUriRoot": "/wado",
        "imageRendering": "wadors",
        "thumbnailRendering": "wadors",
        "supportsWildcard": True,
        "supportsFuzzyMatching": False,
        "omitQuotationForMultipartRequest": True,
        "bulkDataURI": {"enabled": True},
    },
}
_CONFIGURATION = {
    "routerBasename": "/",
    "extensions": [],
    "modes": [],
    "showStudyList": True,
    "defaultDataSourceName": "orthanc",
    "investigationalUseDialog": {"option": "never"},
    "dataSources": [_SOURCE],
}


def ohif_folder() -> Path:
    """Return the folder of the application, fetched from the npm registry once."""
    kept = ROOT / ".cache" / f"ohif-{VERSION}"
    if not (kept / "index.html").is_file():
        npm = shutil.which("npm")
        if npm is None:
            skip_or_fail("the command npm is not installed")
            raise AssertionError
        with tempfile.TemporaryDirectory(dir=_made(kept.parent)) as folder:
            packing = subprocess.run(
                [npm, "pack", "--silent", f"@ohif/app@{VERSION}"],
                cwd=folder, capture_output=True, text=True, check=False, timeout=300,
            )  # fmt: skip
            if packing.returncode:
                skip_or_fail(f"npm does not give @ohif/app {VERSION}: {packing.stderr.strip()}")
            (archive,) = Path(folder).glob("*.tgz")
            with tarfile.open(archive) as packed:
                packed.extractall(folder, filter="data")
            shutil.move(Path(folder) / "package" / "dist", kept)
    return kept


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class OhifServer:
    """One origin for the application and for Orthanc's DICOMweb, which OHIF then takes as its own.

    The browser's Host header is passed on: Orthanc builds the addresses of images from it.
    """

    def __init__(self, dist: Path, orthanc_port: int) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(dist, orthanc_port))
        self._thread = threading.Thread(target=self._server.serve_forever, name="ohif")

    def study(self, study_uid: str) -> str:
        """Return the address that opens a study."""
        port = self._server.server_address[1]
        return f"http://127.0.0.1:{port}/viewer?StudyInstanceUIDs={study_uid}"

    def __enter__(self) -> OhifServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(dist: Path, orthanc_port: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith(("/dicom-web", "/wado")):
                self._pass_on()
            elif path == "/app-config.js":
                text = f"window.config = {json.dumps(_CONFIGURATION)};"
                self._answer(200, "text/javascript", text.encode())
            else:
                file = dist / path.lstrip("/")
                if not (file.is_file() and dist in file.resolve().parents):
                    file = dist / "index.html"  # a route of the application
                self._answer(200, _type_of(file), file.read_bytes())

        do_POST = do_GET  # noqa: N815 - the library's names

        def _pass_on(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else None
            connection = http.client.HTTPConnection("127.0.0.1", orthanc_port, timeout=60)
            try:
                headers = dict(self.headers) | {"Accept-Encoding": "identity"}
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                self._answer(answer.status, answer.getheader("Content-Type", ""), answer.read())
            finally:
                connection.close()

        def _answer(self, status: int, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


def _type_of(file: Path) -> str:
    known = {".wasm": "application/wasm", ".js": "text/javascript"}
    guessed = mimetypes.guess_type(file.name)[0]
    return known.get(file.suffix) or guessed or "application/octet-stream"


@contextmanager
def browser_page(require_tool: Callable[[str], str]) -> Iterator[Page]:
    """Yield a page of a headless Chromium, 1,400 x 900."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=require_tool("chromium"), args=list(CHROMIUM)
        )
        try:
            yield browser.new_page(viewport={"width": 1400, "height": 900})
        finally:
            browser.close()
