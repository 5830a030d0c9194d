"""Run the clients of other people against `issun serve`, and write docs/clients.md.

Each script in python/ and node/ is one client in the form that its documentation shows. It runs in
an environment of its own below build/clients. The exit code is 1 where a feature fails that
results.json says works; `--write` records what was found.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from tests.clients import environments, table

TIMEOUT = 900.0  # seconds for all of one client, its installation included


def main() -> int:
    """Run the clients that are asked for; 1 where one does less than it did."""
    asked = _arguments()
    recorded = table.load()
    worse = []
    with _server(asked) as (url, model):
        for script in environments.scripts(asked.clients):
            client = _run(script, url, model, asked.newest)
            before = recorded.get(client.name)
            worse += [] if before is None else before.missing_in(client)
            recorded[client.name] = client
            print(f"{client.name} {client.version}: {client.summary()}", flush=True)
            for feature in client.failed():
                print(f"    {feature.label}: {' '.join(feature.found.split())[:400]}", flush=True)
    if asked.write:
        table.save(recorded)
    for what in worse:
        print(f"worse than before: {what}", file=sys.stderr)
    return 1 if worse else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clients", nargs="*", help="names of clients (default: all)")
    issun = os.environ.get("ISSUN", str(Path(sys.executable).with_name("issun")))
    parser.add_argument("--issun", default=issun, help="the command that serves, also by ISSUN")
    parser.add_argument("--url", help="a server that runs already, without /v1")
    parser.add_argument("--write", action="store_true", help="record what was found")
    parser.add_argument("--newest", action="store_true", help="also releases of after the record")
    return parser.parse_args()


@contextmanager
def _server(asked: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """A server's address and the name of its model."""
    if asked.url:
        yield asked.url, _model(asked.url)
        return
    command = [asked.issun, "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "http://" in line:
                    url = "http://" + line.split("http://")[1].split()[0]
                    break
            else:
                raise SystemExit(f"{' '.join(command)} did not start")
            yield url, _model(url)
        finally:
            process.terminate()


def _model(url: str) -> str:
    with urlopen(f"{url}/v1/models") as answer:  # noqa: S310 - the address of our own server
        return str(json.load(answer)["data"][0]["id"])


def _run(script: Path, url: str, model: str, newest: bool) -> table.Client:
    """What one client's script reports; what it writes to stderr is shown where it breaks off."""
    name = environments.name_of(script)
    more = {"ISSUN_URL": url, "ISSUN_MODEL": model}
    try:
        command, settings = environments.command(script, newest=newest)
        done = subprocess.run(
            command,
            env=os.environ | settings | more,
            cwd=environments.CACHE,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return table.Client.broken(name, str(error))
    client = table.Client.read(name, done.stdout)
    if done.returncode:
        return table.Client.broken(name, done.stderr[-2000:], client)
    return client


if __name__ == "__main__":
    sys.exit(main())
