"""A small local stand-in for the Azure ML services that the real azureml-core client calls.

One server on loopback answers for everything: plain HTTP for the services of a workspace, and
as HTTPS proxy for the hosts with fixed names (Resource Manager, blob storage). Through the proxy
no request can leave the machine. What arrives is kept in plain lists and dictionaries.
"""

import base64
import datetime
import ipaddress
import json
import posixpath
import re
import ssl
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

BLOB = "standin.blob.core.windows.net"
HOSTS = (BLOB, "management.azure.com")
SUBSCRIPTION, EXPERIMENT, WORKSPACE_ID = (str(uuid.UUID(int=number)) for number in (1, 2, 3))
PROVIDER = "providers/Microsoft.MachineLearningServices/workspaces/standin"
SCOPE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/group/{PROVIDER}"
SERVICES = {"metrics": "/metric/", "artifacts": "/artifact/", "history": "/history/"}
ROUTES = []


def route(method, pattern):
    """Have a method answer requests with this method and path: it returns status and content."""
    return lambda function: ROUTES.append((method, re.compile(pattern), function)) or function


def token():
    """An unsigned token that is valid for an hour."""
    claims = {"exp": int(time.time()) + 3600, "tid": WORKSPACE_ID, "oid": EXPERIMENT}
    texts = [json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, claims, {})]
    return ".".join(base64.urlsafe_b64encode(text).decode().rstrip("=") for text in texts)


def certificate(folder):
    """Make a certificate for `HOSTS` that signs itself; return the file with it and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stand-in")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    names = x509.SubjectAlternativeName([*map(x509.DNSName, HOSTS), address])
    now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - day).not_valid_after(now + day)
    made = made.add_extension(names, False).add_extension(x509.BasicConstraints(True, None), True)
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(pem, form, serialization.NoEncryption())
    path = folder / "standin.pem"
    path.write_bytes(secret + made.sign(key, hashes.SHA256()).public_bytes(pem))
    return path


class AzureStandin:
    """The services of one workspace; `with` starts and stops them.

    `faults` maps one of `SERVICES`, or blob, to "drop" (the connection), "hang" or a status.
    """

    def __init__(self, folder):
        self.faults, self.metrics, self.artifacts = {}, {}, {}
        self.tags, self.status, self.experiments, self.unknown = {}, [], [], []
        self.pem = certificate(folder)
        self.lock, self.stopped = threading.Lock(), threading.Event()

    def __enter__(self):
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(self.pem)
        handler = type("Handler", (Handler,), {"azure": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads, self.server.block_on_close = True, False
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request):
        """The status and the content for a request, or a fault."""
        starts = (s for s, start in SERVICES.items() if request.path.startswith(start))
        service = "blob" if request.host == BLOB else next(starts, None)
        if fault := self.faults.get(service):
            return fault, error(f"injected {fault}")
        with self.lock:
            for method, pattern, function in ROUTES:
                request.match = pattern.fullmatch(request.path)
                if method == request.method and request.match:
                    return function(self, request)
            self.unknown.append((request.method, request.path))
            return 404, error("NotFound")

    def elsewhere(self, home):
        """Environment variables of a machine without Azure ML; `home` is an empty folder."""
        proxy = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), self.url)
        direct = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1")
        return {"HOME": str(home), **proxy, **direct, "REQUESTS_CA_BUNDLE": str(self.pem)}

    def job(self, home):
        """Environment variables as a job has them."""
        names = {"RUN_ID": "job-run", "RUN_TOKEN": token(), "SERVICE_ENDPOINT": self.url}
        names |= {"ARM_SUBSCRIPTION": SUBSCRIPTION, "ARM_RESOURCEGROUP": "group"}
        names |= {"ARM_WORKSPACE_NAME": "standin", "ARM_PROJECT_NAME": "tutorial"}
        names |= {"EXPERIMENT_ID": EXPERIMENT, "WORKSPACE_ID": WORKSPACE_ID}
        names["DISCOVERY_SERVICE_ENDPOINT"] = f"{self.url}/discovery"
        variables = {f"AZUREML_{name}": value for name, value in names.items()}
        return {**self.elsewhere(home), **variables}

    def instance(self, home):
        """Environment variables as a compute instance has them; config.json goes to `home`."""
        config = {"subscription_id": SUBSCRIPTION, "resource_group": "group"}
        config["workspace_name"] = "standin"
        (home / "config.json").write_text(json.dumps(config))
        sign_in = {"MSI_ENDPOINT": f"{self.url}/msi/token", "MSI_SECRET": "local"}
        return {**self.elsewhere(home), **sign_in}

    @route("POST", "/msi/token")
    def sign_in(self, request):
        resource = parse_qs(request.body.decode()).get("resource", [""])[0]
        made = {"access_token": token(), "token_type": "Bearer", "resource": resource}
        return 200, {**made, "expires_on": str(int(time.time()) + 3600), "expires_in": "3600"}

    @route("GET", "/subscriptions|/metadata/endpoints")
    def subscriptions(self, request):
        account = {"id": f"/subscriptions/{SUBSCRIPTION}", "subscriptionId": SUBSCRIPTION}
        found = {"value": [{**account, "displayName": "local", "state": "Enabled"}]}
        return 200, found if request.path == "/subscriptions" else []

    @route("GET", SCOPE)
    def workspace(self, _):
        properties = {"workspaceId": WORKSPACE_ID, "provisioningState": "Succeeded"}
        properties["discoveryUrl"] = f"{self.url}/discovery"
        head = {"id": SCOPE, "name": "standin", "location": "local", "type": "workspaces"}
        return 200, {**head, "properties": properties}

    @route("GET", "/discovery")
    def discovery(self, _):
        names = ("api", "experimentation", "history", "hyperdrive", "modelmanagement", "studio")
        return 200, dict.fromkeys(names, self.url)

    @route("GET", r"/history/.*/experimentids/[^/]+()")
    @route("GET", r"/history/.*/experiments/([^/]+)")
    @route("POST", r"/history/.*/experiments/([^/]+)")
    def experiment(self, request):
        name = request.match[1] or "tutorial"
        self.experiments += [name] * (name not in self.experiments)
        return 200, {"experimentId": EXPERIMENT, "name": name, "tags": {}}

    @route("GET", r"/history/.*/runs/([^/]+)")
    @route("PATCH", r"/history/.*/runs/([^/]+)")
    def run(self, request):
        if request.method == "PATCH":
            self.tags.update(json.loads(request.body).get("tags") or {})
        name = request.match[1]
        ids = {"rootRunId": name, "runId": name, "dataContainerId": f"dcid.{name}"}
        state = {"status": self.status[-1] if self.status else "Running", "tags": self.tags}
        return 200, {**ids, **state, "runNumber": 1, "experimentId": EXPERIMENT, "properties": {}}

    @route("GET", r"/history/.*/runs/[^/]+/metricsingest/wait")
    @route("POST", r"/history/.*/runs/[^/]+/events")
    def event(self, request):
        if request.body:
            self.status.append(json.loads(request.body)["name"].rsplit(".", 1)[1])
        return 200, None

    @route("POST", r"/metric/.*/runs/[^/]+/batch")
    def log_batch(self, request):
        for metric in json.loads(request.body)["values"]:
            name = metric["name"]
            for value in metric["value"]:
                data = value["data"][name]
                self.metrics.setdefault(name, []).append((value.get("step"), data))
        return 200, {"errors": []}

    @route("POST", r"/artifact/.*/batch/metadata/([^/]+)/([^/]+)")
    def new_files(self, request):
        origin, box = request.match.groups()
        made, places, errors = {}, {}, {}
        for path in (wanted["path"] for wanted in json.loads(request.body)["paths"]):
            name = posixpath.normpath(path)  # "./outputs/a" and "outputs/a" are one file
            if name in self.artifacts:
                errors[path] = error("Resource Conflict: artifact already exists")
                continue
            self.artifacts[name] = None
            uri = f"https://{BLOB}/files/{name}?sig=local"
            places[path] = {"contentUri": uri, "origin": origin, "container": box, "path": name}
            made[path] = {**places[path], "artifactId": f"{origin}/{box}/{name}"}
        return 200, {"artifacts": made, "artifactContentInformation": places, "errors": errors}

    @route("PUT", r"/files/(.+)")
    @route("HEAD", r"/files/(.+)")
    def blob(self, request):
        if request.method == "PUT":
            self.artifacts[request.match[1]] = request.body
            return 201, None
        return (404 if self.artifacts.get(request.match[1]) is None else 200), None


def error(message):
    """What the services say when something is wrong."""
    return {"error": {"code": "UserError", "message": message}}


class Handler(BaseHTTPRequestHandler):
    """Reads requests, applies faults, sends answers."""

    protocol_version = "HTTP/1.1"
    host = None

    def log_message(self, *_):
        pass

    def do_CONNECT(self):
        self.host = self.path.rsplit(":", 1)[0]
        if self.host not in HOSTS:
            self.azure.unknown.append(("CONNECT", self.path))
            return self.send_error(502)
        self.send_response(200)
        self.end_headers()
        self.connection = self.azure.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)
        self.close_connection = False

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except OSError:  # the client went away
            self.close_connection = True

    def respond(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, method = unquote(urlsplit(self.path).path), self.command
        request = SimpleNamespace(method=method, host=self.host, path=path, body=body)
        status, content = self.azure.answer(request)
        if status == "hang":
            self.azure.stopped.wait()
        if status in ("hang", "drop"):
            self.close_connection = True
            return self.connection.close()
        content = b"" if content is None else json.dumps(content).encode()
        self.send_response(int(status))
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        if self.host == BLOB:
            self.send_header("ETag", '"0x1"')
            self.send_header("Last-Modified", self.date_time_string())
            self.send_header("x-ms-blob-type", "BlockBlob")
        self.end_headers()
        if method != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_HEAD = respond  # noqa: N815
