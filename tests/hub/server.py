"""A server that speaks the part of the Hub's HTTP API that pushing and loading need. It listens on this
machine alone and keeps repositories in memory. No test lives here."""

import base64
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

LARGE = (".safetensors", ".png", ".pt", ".pth")
LICENSES = {"apache-2.0", "mit", "cc-by-4.0", "other"}


@dataclass
class Fault:
    """What goes wrong with the next requests of a repository whose line matches.

    Args:
        where: regular expression for "METHOD /path".
        status: answered instead; None cuts the connection in the middle of the body.
        times: how often.
    """

    where: str
    status: int | None
    times: int = 1


@dataclass
class Repository:
    """Files of the one branch, large files by their sha256, the commits' messages and what they left."""

    files: dict[str, bytes] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    history: list[dict[str, bytes]] = field(default_factory=list)

    @property
    def sha(self) -> str:
        return f"{len(self.commits):040x}"


class Hub:
    """The server's state and its thread; use as a context manager.

    Args:
        tokens: those that may write.
    """

    def __init__(self, *tokens: str) -> None:
        self.tokens = tokens
        self.repositories: dict[str, Repository] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.requests: list[tuple[str, bytes]] = []
        """"METHOD /path" and body of every request, in order."""

    def __enter__(self) -> "Hub":
        handler = type("Handler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def fault(self, repository: str, line: str) -> Fault | None:
        """The fault that meets a request, counted down."""
        for fault in self.faults.get(repository, []):
            if fault.times and re.search(fault.where, line):
                fault.times -= 1
                return fault
        return None


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        self.answer()

    do_GET = do_HEAD = do_PUT = do_POST

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        line = f"{self.command} {path}"
        fault = self.hub.fault(repository_of(path), line)
        if fault and fault.status is None:
            self.rfile.read(min(10, int(self.headers.get("Content-Length", 0))))
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.body = self.read_body()
        self.hub.requests.append((line, self.body))
        if fault:
            self.reply(fault.status, {"error": "made to fail"})
            return
        for pattern, method, writes in ROUTES:
            if match := re.fullmatch(pattern, line):
                if writes and self.headers.get("Authorization", "")[7:] not in self.hub.tokens:
                    self.reply(401, {"error": "Invalid username or password."})
                else:
                    method(self, *match.groups())
                return
        self.reply(404, {"error": f"no such route: {line}"})

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def reply(self, status: int, content: object, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # ---- Writing ----

    def create(self) -> None:
        request = json.loads(self.body)
        name = f"{request['organization'] or 'someone'}/{request['name']}"
        if fault := self.hub.fault(name, "POST /api/repos/create"):
            self.reply(fault.status, {"error": "made to fail"})
            return
        existed = name in self.hub.repositories
        self.hub.repositories.setdefault(name, Repository())
        kind = "spaces/" if request.get("type") == "space" else ""
        self.reply(409 if existed else 200, {"url": f"{self.hub.endpoint}/{kind}{name}"})

    def validate(self) -> None:
        if errors := metadata_errors(json.loads(self.body)["content"]):
            self.reply(400, {"errors": [{"message": error} for error in errors], "warnings": []})
        else:
            self.reply(200, {"errors": [], "warnings": []})

    def preupload(self, name: str, revision: str) -> None:
        held = self.hub.repositories[name].files
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
                "oid": git_or_lfs_oid(file["path"], held[file["path"]]) if file["path"] in held else None,
            }
            for file in json.loads(self.body)["files"]
        ]
        self.reply(200, {"files": files})

    def lfs_batch(self, name: str) -> None:
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            upload = {"href": f"{self.hub.endpoint}/{name}/lfs/{wanted['oid']}"}
            missing = wanted["oid"] not in self.hub.repositories[name].objects
            objects.append(wanted | ({"actions": {"upload": upload}} if missing else {}))
        self.reply(200, {"transfer": "basic", "objects": objects})

    def lfs_upload(self, name: str, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            self.reply(400, {"error": "the content is not what was announced"})
            return
        self.hub.repositories[name].objects[oid] = self.body
        self.reply(200, b"")

    def commit(self, name: str, revision: str) -> None:
        repository = self.hub.repositories[name]
        header, *operations = (json.loads(line) for line in self.body.splitlines())
        files = dict(repository.files)
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = repository.objects[value["oid"]]
            else:
                raise NotImplementedError(operation["key"])
        repository.files = files
        repository.commits.append(header["value"]["summary"])
        repository.history.append(files)
        url = f"{self.hub.endpoint}/{name}/commit/{repository.sha}"
        self.reply(200, {"commitUrl": url, "commitOid": repository.sha})

    # ---- Reading ----

    def info(self, name: str, revision: str | None = None) -> None:
        if repository := self.repository(name):
            siblings = [{"rfilename": path} for path in repository.files]
            self.reply(200, {"id": name, "sha": repository.sha, "siblings": siblings, "tags": []})

    def tree(self, name: str, revision: str, folder: str | None = None) -> None:
        if repository := self.repository(name):
            files = [
                {"type": "file", "path": path, "size": len(content), "oid": git_or_lfs_oid(path, content)}
                for path, content in repository.files.items()
                if path.startswith(f"{folder}/" if folder else "")
            ]
            self.reply(200, files)

    def resolve(self, name: str, revision: str, path: str) -> None:
        if (repository := self.repository(name)) is None:
            return
        if path not in repository.files:
            self.reply(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
            return
        content = repository.files[path]
        etag = f'"{git_or_lfs_oid(path, content)}"'
        self.reply(200, content, ETag=etag, X_Repo_Commit=repository.sha)

    def repository(self, name: str) -> Repository | None:
        """The repository; where there is none the request is answered."""
        if name not in self.hub.repositories:
            self.reply(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        return self.hub.repositories.get(name)


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = [
    (r"POST /api/repos/create", Handler.create, True),
    (r"POST /api/validate-yaml", Handler.validate, False),
    (rf"POST /api/(?:models|spaces)/{NAME}/preupload/(\w+)", Handler.preupload, True),
    (rf"POST /{NAME}\.git/info/lfs/objects/batch", Handler.lfs_batch, True),
    # the storage's addresses are signed: no token is sent there
    (rf"PUT /{NAME}/lfs/(\w+)", Handler.lfs_upload, False),
    (rf"POST /api/(?:models|spaces)/{NAME}/commit/(\w+)", Handler.commit, True),
    (rf"GET /api/models/{NAME}", Handler.info, False),
    (rf"GET /api/models/{NAME}/revision/(\w+)", Handler.info, False),
    (rf"GET /api/models/{NAME}/tree/(\w+)", Handler.tree, False),
    (rf"GET /api/models/{NAME}/tree/(\w+)/(.+)", Handler.tree, False),
    (rf"(?:GET|HEAD) /{NAME}/resolve/(\w+)/(.+)", Handler.resolve, False),
]


def repository_of(path: str) -> str:
    """The repository that a path speaks of, "" for none."""
    match = re.match(r"/(?:api/(?:models|spaces)/)?([\w.-]+/[\w.-]+?)(?:\.git)?(?:/|$)", path)
    return match.group(1) if match else ""


def git_or_lfs_oid(path: str, content: bytes) -> str:
    """What the Hub names a file by: sha256 for large files, git's blob hash for the others."""
    if path.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def metadata_errors(card: str) -> list[str]:
    """What the Hub's documentation says of the YAML on top of a model card, as far as our cards use it."""
    match = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    if not match:
        return ["there is no metadata"]
    data = yaml.safe_load(match.group(1))
    errors = [
        f"{key} must be a string"
        for key in ("pipeline_tag", "license", "library_name")
        if not isinstance(data.get(key, ""), str)
    ]
    if data.get("license", "other") not in LICENSES:
        errors.append(f"license {data['license']!r} is not known")
    errors += [
        f"{key} must hold strings"
        for key in ("tags", "datasets", "metrics")
        if not all(isinstance(item, str) for item in data.get(key, []))
    ]
    for model in data.get("model-index", []):
        for result in model["results"]:
            if not {"type", "name"} <= result["dataset"].keys() or not result["task"].get("type"):
                errors.append("a result lacks its task or dataset")
            if not all({"type", "value"} <= metric.keys() for metric in result["metrics"]):
                errors.append("a metric lacks its type or value")
    return errors
