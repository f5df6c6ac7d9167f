"""Open WebUI, unmodified and without the network. Run in an environment of its own by test_clients.py."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

QUESTION = "Mia starts with 7, adds 5, doubles it and takes away 9. Tom starts with 12 and triples it. What is the total?"
OFFLINE = {
    "OFFLINE_MODE": "true",
    "HF_HUB_OFFLINE": "1",
    "WEBUI_AUTH": "false",  # one user, who needs no password
    "WEBUI_SECRET_KEY": "of this test",
    "ENABLE_OLLAMA_API": "false",
    "RAG_EMBEDDING_ENGINE": "openai",  # else it wants an embedding model from the hub
    "ENABLE_VERSION_UPDATE_CHECK": "false",
    "ANONYMIZED_TELEMETRY": "false",
    "DO_NOT_TRACK": "true",
}

with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    port = found.getsockname()[1]
with tempfile.TemporaryDirectory() as folder:
    server = {"OPENAI_API_BASE_URL": os.environ["OPENAI_BASE_URL"], "OPENAI_API_KEY": os.environ["OPENAI_API_KEY"]}
    with (Path(folder) / "log").open("w+") as log:
        program = [str(Path(sys.executable).parent / "open-webui"), "serve", "--host", "127.0.0.1", "--port", str(port)]
        environment = {**os.environ, **OFFLINE, **server, "DATA_DIR": folder}
        process = subprocess.Popen(program, env=environment, cwd=folder, stdout=log, stderr=log)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as client:
                for _ in range(540):
                    try:
                        if client.get("/health").status_code == 200:
                            break
                    except httpx.TransportError:
                        pass
                    assert process.poll() is None, "it has ended"
                    time.sleep(1)
                token = (
                    client.post("/api/v1/auths/signin", json={"email": "", "password": ""}).raise_for_status().json()["token"]
                )
                client.headers["authorization"] = f"Bearer {token}"
                print("ok: started")

                models = client.get("/api/models").raise_for_status().json()["data"]
                assert "multiverse-mini" in [model["id"] for model in models], models
                print("ok: models")

                messages = [{"role": "user", "content": QUESTION}]
                body = {"model": "multiverse-mini", "messages": messages, "temperature": 0, "stream": False}
                whole = client.post("/api/chat/completions", json=body).raise_for_status().json()
                content = whole["choices"][0]["message"]["content"]
                assert content
                print("ok: answer")

                with client.stream("POST", "/api/chat/completions", json={**body, "stream": True}) as answer:
                    lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: {")]
                chunks = [choice["delta"] for line in lines for choice in json.loads(line).get("choices", [])]
                assert "".join(delta.get("content") or "" for delta in chunks) == content
                print("ok: stream")

                messages += [{"role": "assistant", "content": content}, *messages]
                again = client.post("/api/chat/completions", json={**body, "messages": messages}).raise_for_status().json()
                assert again["choices"][0]["message"]["content"]
                print("ok: conversation")
        except BaseException:
            log.seek(0)
            print(log.read()[-8000:], file=sys.stderr)
            raise
        finally:
            process.terminate()
            process.wait()
