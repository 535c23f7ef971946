"""A hub of Hugging Face's kind on a port of this machine, as a thread: what `vllama pull` and huggingface_hub ask of one.

    with FakeHub() as hub:
        hub.put("tiny/chat", {"config.json": b"{}", "model.safetensors": weights})   # the next commit of its main
        ...  HF_ENDPOINT=hub.url

GET /api/models/ID[/revision/REV][?blobs=true], GET and HEAD /ID/resolve/REV/NAME with etag, x-repo-commit and ranges; large
files (`*.safetensors`, `*.bin`) lie in a store of their own, to which the hub sends on with x-linked-etag and x-linked-size.

Faults, for the next requests of the files themselves: `hub.cut(NAME, at)` breaks the connection once after so many bytes,
`hub.hold(NAME, at)` sends no more than that until `hub.go_on(NAME)`, `hub.spoil(NAME)` changes a byte, once.
"""

import hashlib
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".bin", ".pt", ".gguf")
BOUND_S = 60.0


class FakeHub:
    """`requests` counts (method, path); `ranges` has the Range header of each that came with one; `tokens` what was shown."""

    def __init__(self, *, blobs: bool = True, ranges: bool = True) -> None:
        self.blobs = blobs  # whether a listing tells size and digest of each file, as the hub does and a mirror may not
        self.takes_ranges = ranges
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}  # model -> commit -> name -> content
        self.refs: dict[tuple[str, str], str] = {}
        self.gated: set[str] = set()
        self.private: dict[str, str] = {}  # model -> the token that may read it
        self.down = 0  # so many answers more are 503
        self.requests: Counter[tuple[str, str]] = Counter()
        self.ranges: list[str] = []
        self.tokens: set[str] = set()
        self._faults: dict[tuple[str, str], int] = {}
        self._held: dict[str, threading.Event] = {}
        self._let: dict[str, threading.Event] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: _Handler(self, *args))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.store = f"http://localhost:{self._server.server_port}/store"  # another name: the client keeps its token to itself

    def __enter__(self) -> "FakeHub":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for event in self._let.values():
            event.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def put(self, model: str, files: dict[str, bytes], revision: str = "main") -> str:
        """The next commit of a branch; its name."""
        listing = "\n".join(f"{name} {hashlib.sha256(data).hexdigest()}" for name, data in files.items())
        commit = hashlib.sha1(f"{model}\n{listing}".encode(), usedforsecurity=False).hexdigest()
        self.commits.setdefault(model, {})[commit] = dict(files)
        self.refs[model, revision] = commit
        return commit

    def cut(self, name: str, at: int) -> None:
        self._faults["cut", name] = at

    def spoil(self, name: str) -> None:
        self._faults["spoil", name] = 0

    def hold(self, name: str, at: int) -> None:
        self._faults["hold", name] = at
        self._held[name], self._let[name] = threading.Event(), threading.Event()

    def until_held(self, name: str) -> None:
        """Returns when so much of the file is out and no more comes."""
        assert self._held[name].wait(BOUND_S)

    def go_on(self, name: str) -> None:
        self._let[name].set()

    def fault(self, kind: str, name: str) -> int | None:
        return self._faults.pop((kind, name), None)

    def wait(self, name: str) -> None:
        self._held[name].set()
        self._let[name].wait(BOUND_S)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: FakeHub, *args) -> None:
        self.hub = hub
        super().__init__(*args)

    def log_message(self, *_) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.hub.requests[self.command, path] += 1
        if wanted := self.headers.get("Range"):
            self.hub.ranges.append(wanted)
        if token := self.headers.get("Authorization"):
            self.hub.tokens.add(token.removeprefix("Bearer "))
        if self.hub.down:
            self.hub.down -= 1
            self._refuse(503, "")
        elif path.startswith("/api/models/"):
            self._info(path.removeprefix("/api/models/"), "blobs" in parse_qs(url.query))
        elif path.startswith("/store/"):
            digest, _, name = path.removeprefix("/store/").partition("/")
            self._store(digest, name)
        elif "/resolve/" in path:
            model, _, rest = path[1:].partition("/resolve/")
            revision, _, name = rest.partition("/")
            self._resolve(model, revision, name)
        else:
            self._refuse(404, "")

    def _commit(self, model: str, revision: str) -> str | None:
        """None when it was refused."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if model not in self.hub.commits or self.hub.private.get(model, token) != token:
            self._refuse(401, "RepoNotFound")
        elif model in self.hub.gated:
            self._refuse(403, "GatedRepo")
        elif revision in self.hub.commits[model]:
            return revision
        elif (model, revision) in self.hub.refs:
            return self.hub.refs[model, revision]
        else:
            self._refuse(404, "RevisionNotFound")
        return None

    def _info(self, rest: str, blobs: bool) -> None:
        model, _, revision = rest.partition("/revision/")
        if (commit := self._commit(model, revision or "main")) is None:
            return
        files = self.hub.commits[model][commit].items()
        siblings = [
            {"rfilename": name} | (_told(name, data) if blobs and self.hub.blobs else {})
            for name, data in files
        ]
        tree = {
            "_id": "0",
            "id": model,
            "modelId": model,
            "sha": commit,
            "private": False,
            "siblings": siblings,
        }
        self._send(200, {"Content-Type": "application/json"}, json.dumps(tree).encode())

    def _resolve(self, model: str, revision: str, name: str) -> None:
        if (commit := self._commit(model, revision)) is None:
            return
        data = self.hub.commits[model][commit].get(name)
        if data is None:
            self._refuse(404, "EntryNotFound")
            return
        headers = {"X-Repo-Commit": commit}
        if name.endswith(LARGE):
            digest = hashlib.sha256(data).hexdigest()
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
            self._send(302, headers | {"Location": f"{self.hub.store}/{digest}/{name}"}, b"")
        else:
            self._content(name, data, headers | {"ETag": f'"{_git_id(data)}"'})

    def _store(self, digest: str, name: str) -> None:
        for commits in self.hub.commits.values():
            for files in commits.values():
                if hashlib.sha256(files.get(name, b"")).hexdigest() == digest:
                    self._content(name, files[name], {"ETag": f'"{digest}"'})
                    return
        self._refuse(404, "")

    def _content(self, name: str, data: bytes, headers: dict[str, str]) -> None:
        whole, status, at = len(data), 200, 0
        wanted = self.headers.get("Range")
        if wanted and self.hub.takes_ranges:
            at = int(wanted.removeprefix("bytes=").partition("-")[0])
            if at >= whole:
                self._send(416, {"Content-Range": f"bytes */{whole}"}, b"")
                return
            status, headers = 206, headers | {"Content-Range": f"bytes {at}-{whole - 1}/{whole}"}
        data = data[at:]
        if self.command == "GET" and self.hub.fault("spoil", name) is not None:
            data = bytes([data[0] ^ 1]) + data[1:]
        self._head(status, headers | {"Content-Length": str(len(data))})
        if self.command == "HEAD":
            return
        try:
            if (held_at := self.hub.fault("hold", name)) is not None:
                self.wfile.write(data[:held_at])
                self.hub.wait(name)
                data = data[held_at:]
            if (cut_at := self.hub.fault("cut", name)) is not None:
                self.wfile.write(data[:cut_at])
                self.close_connection = True
                return
            self.wfile.write(data)
        except OSError:  # who asked has left
            self.close_connection = True

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, {"X-Error-Code": code} if code else {}, b'{"error":"refused"}')

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self._head(status, headers | {"Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _told(name: str, data: bytes) -> dict:
    """What the hub's listing says of a file with `blobs=true`."""
    told: dict = {"size": len(data), "blobId": _git_id(data)}
    if name.endswith(LARGE):
        told["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return told


def _git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def model_files(architecture: str = "Qwen3ForCausalLM", weights_bytes: int = 4096) -> dict[str, bytes]:
    """The files of a model that a fake engine can serve."""
    config = {
        "architectures": [architecture],
        "model_type": "qwen3",
        "max_position_embeddings": 512,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
    }
    header = json.dumps(
        {"w": {"dtype": "BF16", "shape": [weights_bytes // 2], "data_offsets": [0, weights_bytes]}}
    ).encode()
    body = hashlib.shake_128(b"weights").digest(weights_bytes)
    return {
        ".gitattributes": b"*.safetensors filter=lfs\n",
        "README.md": b"# A model\n",
        "config.json": json.dumps(config).encode(),
        "tokenizer.json": b"{}",
        "model.safetensors": len(header).to_bytes(8, "little") + header + body,
    }
