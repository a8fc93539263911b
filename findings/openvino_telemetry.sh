#!/usr/bin/env bash
# openvino 2026.4.1, openvino-telemetry 2025.2.0, Python 3.11
#
# Guess: a library that runs networks on the local processor uses the network only when it is asked to
# download something; telemetry, if it has any, begins with a question to the user.
# Seen: `import openvino` alone, without any call, looks up www.google-analytics.com to send an event
# ("import", with the version) and writes an identifier of the user and a count of uses to ~/intel. Only its
# command-line tools ask; the Python package has `enable_opt_in_dialog=False`, where no answer means consent.
# `opt_in_out --opt_out` turns it off, but sends an event that says so, even though consent was never given.
# Nothing is sent or written where the package openvino_telemetry, which openvino requires, cannot be
# imported: openvino (and nncf) have a stand-in for it. In Python, before the first import:
# `sys.modules["openvino_telemetry"] = None`.
#
# Nothing leaves this machine here: name lookups and connections are replaced by a function that refuses.
#
# Output seen:
#   import openvino: asks for www.google-analytics.com; ~/intel: openvino_ga_cid stats
#   opt_in_out --opt_out: asks for www.google-analytics.com; ~/intel: openvino_telemetry
#   without openvino_telemetry: asks for nothing; ~/intel: nothing
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q openvino==2026.4.1 openvino-telemetry==2025.2.0
cat > "$folder/watch.py" <<'PYTHON'
import contextlib
import socket
import sys
import time
from pathlib import Path

asked = Path.home().parent / "asked"  # a file, since a forked process sends


def refuse(host, *arguments, **options):
    with open(asked, "a") as file:
        print(host[0] if isinstance(host, tuple) else host, file=file)
    raise OSError("refused by this script")


socket.getaddrinfo = socket.create_connection = refuse
socket.socket.connect = lambda self, address: refuse(address)
name = sys.argv[1]
if name == "without openvino_telemetry":
    sys.modules["openvino_telemetry"] = None
if name.startswith("opt_in_out"):
    sys.argv = ["opt_in_out", "--opt_out"]
    from openvino_telemetry.opt_in_out import main

    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(sys.stderr):
        main()
else:
    import openvino
time.sleep(3)
files = sorted(path.name for path in Path.home().glob("intel/*"))
hosts = sorted(set(asked.read_text().split())) if asked.is_file() else []
print(f"{name}: asks for {', '.join(hosts) or 'nothing'}; ~/intel: {' '.join(files) or 'nothing'}")
PYTHON
for name in "import openvino" "opt_in_out --opt_out" "without openvino_telemetry"; do
    rm -rf "$folder/home" "$folder/asked" && mkdir "$folder/home"
    env -u CI -u TF_BUILD -u JENKINS_URL HOME="$folder/home" \
        "$folder/venv/bin/python" "$folder/watch.py" "$name" 2> /dev/null
done | tee "$folder/seen"
diff <(sed -n 's/^#   //p' "$0") "$folder/seen"
