"""Fetches Debian's indexes with apt, in a temporary directory of its own, with Debian's signature checked."""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

# Fixed, so that the result does not depend on the machine.
ARCHITECTURE = "amd64"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
APT_GET = "/usr/bin/apt-get"
APT_HELPER = "/usr/lib/apt/apt-helper"


class Snapshot(msgspec.Struct, frozen=True):
    """The indexes as fetched, unpacked."""

    release_date: str
    packages: str
    translations: str
    components: str


def fetch(mirror: str, suite: str) -> Snapshot:
    """Let apt fetch and verify main's Packages, Translation-en and DEP-11 in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="pgretrieve-demo-") as name:
        root = Path(name)
        root.chmod(0o755)  # apt downloads as its own user when started by root
        lists = root / "lists"
        (lists / "partial").mkdir(parents=True)
        sources = root / "sources.list"
        sources.write_text(f"deb [arch={ARCHITECTURE} signed-by={KEYRING}] {mirror} {suite} main\n", encoding="utf-8")
        dep11 = "Acquire::IndexTargets::deb::DEP-11"
        settings = {
            "APT::Architecture": ARCHITECTURE,
            "APT::Architectures": ARCHITECTURE,
            "Dir::State::lists": str(lists),
            "Dir::Cache": str(root / "cache"),
            "Dir::Etc::sourcelist": str(sources),
            "Dir::Etc::sourceparts": "/dev/null",
            "Acquire::Languages": "en",
            # What the package `appstream` puts into 50appstream, so that it need not be installed.
            f"{dep11}::MetaKey": "$(COMPONENT)/dep11/Components-$(NATIVE_ARCHITECTURE).yml",
            f"{dep11}::ShortDescription": "Components-$(NATIVE_ARCHITECTURE)",
            f"{dep11}::Description": "$(RELEASE)/$(COMPONENT) $(NATIVE_ARCHITECTURE) DEP-11 Metadata",
            f"{dep11}::DefaultEnabled": "true",
        }
        options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
        _run([APT_GET, "update", "-qq", "-o", "APT::Update::Error-Mode=any", *options])
        targets = _run([APT_GET, "indextargets", "--format", "$(CREATED_BY)|$(FILENAME)", *options])
        files = dict(line.split("|", 1) for line in targets.splitlines())
        missing = {"Packages", "Translations", "DEP-11"} - files.keys()
        if missing:
            raise SystemExit(f"apt fetched no {', '.join(sorted(missing))} index from {mirror} {suite}")
        release = next(lists.glob("*_InRelease")).read_text(encoding="utf-8")
        date = re.search(r"^Date: (.*)$", release, re.MULTILINE)
        return Snapshot(
            release_date=date[1] if date else "unknown",
            packages=_run([APT_HELPER, "cat-file", files["Packages"]]),
            translations=_run([APT_HELPER, "cat-file", files["Translations"]]),
            components=_run([APT_HELPER, "cat-file", files["DEP-11"]]),
        )


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(  # noqa: S603 - fixed programs, no shell
        command, capture_output=True, env={**os.environ, "LC_ALL": "C.UTF-8"}, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed:\n{done.stderr.decode(errors='replace')}")
    return done.stdout.decode("utf-8")


def read_stanzas(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a Debian control file; continuation lines keep their newlines."""
    for stanza in re.split(r"\n{2,}", text.strip()):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.split("\n"):
            if line[:1] in (" ", "\t"):
                fields[key] += "\n" + line
            else:
                key, _, value = line.partition(":")
                fields[key] = value.strip()
        yield fields
